// An echo server and client over Go's own net package: peer server|client PATH [ROUNDS].
package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	role, path := os.Args[1], os.Args[2]
	if role == "server" {
		listener, err := net.Listen("unix", path)
		check(err)
		fmt.Println("listening")
		connection, err := listener.Accept()
		check(err)
		_, err = io.Copy(connection, connection)
		check(err)
		check(connection.(*net.UnixConn).CloseWrite())
		check(connection.Close())
		return
	}
	connection, err := net.Dial("unix", path)
	check(err)
	sent := make([]byte, 65536)
	for index := range sent {
		sent[index] = byte(index)
	}
	rounds, total := 1, 0
	if len(os.Args) > 3 {
		rounds, err = strconv.Atoi(os.Args[3])
		check(err)
	}
	received := make([]byte, len(sent))
	for left := rounds - 1; left >= 0; left-- {
		_, err = connection.Write(sent)
		check(err)
		if left == 0 {
			check(connection.(*net.UnixConn).CloseWrite())
		}
		length, err := io.ReadFull(connection, received)
		check(err)
		if !bytes.Equal(received, sent) {
			check(fmt.Errorf("other bytes"))
		}
		total += length
	}
	rest, err := io.ReadAll(connection)
	check(err)
	if len(rest) > 0 {
		check(fmt.Errorf("%d bytes too many", len(rest)))
	}
	fmt.Println("ok", total)
}
