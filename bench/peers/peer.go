// Echoes, counts or drives as the Rust side of the benchmark does, with a buffer of 64 KiB.
package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

const buffer = 64 * 1024

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(work, address string) {
	listener, err := net.Listen("unix", address)
	check(err)
	fmt.Println("listening " + address)
	go func() {
		io.Copy(io.Discard, bufio.NewReader(os.Stdin))
		os.Exit(0)
	}()
	for {
		stream, err := listener.Accept()
		check(err)
		go func() {
			defer stream.Close()
			bytes, seen := make([]byte, buffer), 0
			for {
				length, err := stream.Read(bytes)
				if err != nil {
					return
				}
				if !strings.HasPrefix(work, "oneway") {
					if _, err := stream.Write(bytes[:length]); err != nil {
						return
					}
					continue
				}
				before := seen / (32 << 20)
				seen += length
				for ; before < seen/(32<<20); before++ {
					stream.Write([]byte{1})
				}
			}
		}()
	}
}

type clock struct{ start, end time.Time }

func report(times []time.Duration, seconds float64) {
	sort.Slice(times, func(a, b int) bool { return times[a] < times[b] })
	at := func(part float64) float64 {
		return float64(times[int(float64(len(times)-1)*part)].Nanoseconds()) / 1e3
	}
	fmt.Printf("ops=%d seconds=%f p50=%f p99=%f\n", len(times), seconds, at(0.5), at(0.99))
}

func pingPong(stream net.Conn, size int, c clock) []time.Duration {
	question, answer := make([]byte, size), make([]byte, size)
	var times []time.Duration
	for now := time.Now(); now.Before(c.end); {
		_, err := stream.Write(question)
		check(err)
		_, err = io.ReadFull(stream, answer)
		check(err)
		done := time.Now()
		if !now.Before(c.start) {
			times = append(times, done.Sub(now))
		}
		now = done
	}
	return times
}

func dial(address string) net.Conn {
	for tries := 0; ; tries++ {
		stream, err := net.Dial("unix", address)
		if err == nil {
			return stream
		}
		// A full backlog is an error to Go.
		if tries == 1000 {
			check(err)
		}
		time.Sleep(time.Millisecond)
	}
}

func together(count int, c clock, run func() []time.Duration) {
	var all []time.Duration
	var lock sync.Mutex
	var group sync.WaitGroup
	for i := 0; i < count; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			times := run()
			lock.Lock()
			all = append(all, times...)
			lock.Unlock()
		}()
	}
	group.Wait()
	report(all, c.end.Sub(c.start).Seconds())
}

func thereAndBack(address string, c clock, fill func([]byte) int, unit int) {
	stream := dial(address)
	begun := time.Now()
	total := make(chan int, 1)
	go func() {
		block, sent := make([]byte, buffer), 0
		for {
			length := fill(block)
			sent += length
			last := !time.Now().Before(c.end)
			if last {
				total <- sent
			}
			_, err := stream.Write(block[:length])
			check(err)
			if last {
				return
			}
		}
	}()
	bytes, read, end := make([]byte, buffer), 0, -1
	for read != end {
		length, err := stream.Read(bytes)
		check(err)
		read += length
		if end < 0 {
			select {
			case end = <-total:
			default:
			}
		}
	}
	fmt.Printf("ops=%d seconds=%f\n", read/unit, time.Since(begun).Seconds())
}

func drive(work, address string, millis int) {
	start := time.Now().Add(time.Duration(millis) * time.Millisecond / 20)
	c := clock{start, start.Add(time.Duration(millis) * time.Millisecond)}
	sizes := map[string]int{"64": 64, "1k": 1024, "64k": 64 * 1024, "1m": 1 << 20}
	kind, size, _ := strings.Cut(work, "-")
	switch kind {
	case "pingpong":
		times := pingPong(dial(address), sizes[size], c)
		report(times, time.Since(c.start).Seconds())
	case "many":
		var streams = make(chan net.Conn, 64)
		for i := 0; i < 64; i++ {
			streams <- dial(address)
		}
		together(64, c, func() []time.Duration { return pingPong(<-streams, 64, c) })
	case "connect":
		count, _ := strconv.Atoi(size)
		together(count, c, func() []time.Duration {
			var times []time.Duration
			for now := time.Now(); now.Before(c.end); {
				stream := dial(address)
				stream.Write([]byte{1})
				_, err := io.ReadFull(stream, make([]byte, 1))
				check(err)
				stream.Close()
				done := time.Now()
				if !now.Before(c.start) {
					times = append(times, done.Sub(now))
				}
				now = done
			}
			return times
		})
	case "oneway":
		stream, block := dial(address), make([]byte, sizes[size])
		begun, sent := time.Now(), 0
		for {
			receipts := sent / (32 << 20)
			_, err := stream.Write(block)
			check(err)
			sent += len(block)
			if sent/(32<<20) > receipts && !time.Now().Before(c.end) {
				break
			}
		}
		_, err := io.ReadFull(stream, make([]byte, sent/(32<<20)))
		check(err)
		fmt.Printf("ops=%d seconds=%f\n", sent/len(block), time.Since(begun).Seconds())
	case "echo":
		thereAndBack(address, c, func(block []byte) int { return len(block) }, buffer)
	case "messages":
		payload := make([]byte, 64)
		thereAndBack(address, c, func(block []byte) int {
			at := 0
			for ; at+68 <= len(block); at += 68 {
				binary.BigEndian.PutUint32(block[at:], 64)
				copy(block[at+4:], payload)
			}
			return at
		}, 68)
	}
}

func main() {
	if os.Args[1] == "server" {
		serve(os.Args[2], os.Args[3])
		return
	}
	millis, err := strconv.Atoi(os.Args[4])
	check(err)
	drive(os.Args[2], os.Args[3], millis)
}
