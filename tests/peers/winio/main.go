// go-winio at the other end of a named pipe: winio ROLE PIPE LOG. What it sees goes to LOG.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/Microsoft/go-winio"
)

var logPath string

func say(format string, args ...any) {
	log, err := os.OpenFile(logPath, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	defer log.Close()
	fmt.Fprintf(log, format+"\n", args...)
}

func must(what string, err error) {
	if err != nil {
		say("failed: %s: %v", what, err)
		os.Exit(1)
	}
}

// Only pipes of message type have it.
type closeWriter interface{ CloseWrite() error }

// Echoes to one client until that has ended, and says then how much it was.
func serve(path string, messages bool) {
	listener, err := winio.ListenPipe(path, &winio.PipeConfig{
		MessageMode:      messages,
		InputBufferSize:  65536,
		OutputBufferSize: 65536,
	})
	must("listen", err)
	say("listening")
	connection, err := listener.Accept()
	must("accept", err)
	total, err := io.Copy(connection, connection)
	must("echo", err)
	say("end after %d", total)
	if messages {
		_, err = connection.Write([]byte("the end"))
		must("write", err)
		must("half-close", connection.(closeWriter).CloseWrite())
	}
	must("close", connection.Close())
}

func dial(path string) net.Conn {
	connection, err := winio.DialPipe(path, nil)
	must("connect", err)
	return connection
}

func exchange(connection net.Conn, sent []byte) {
	wrote := make(chan error, 1)
	go func() {
		_, err := connection.Write(sent)
		wrote <- err
	}()
	got := make([]byte, len(sent))
	_, err := io.ReadFull(connection, got)
	must("read", err)
	must("write", <-wrote)
	if !bytes.Equal(got, sent) {
		say("failed: other bytes came back")
		os.Exit(1)
	}
}

// An echo server's client, which ends its own direction first.
func talk(path string) {
	connection := dial(path)
	for trip := 0; trip < 1000; trip++ {
		exchange(connection, bytes.Repeat([]byte{byte(trip)}, 64))
	}
	say("1000 round trips")
	large := make([]byte, 1<<20)
	for at := range large {
		large[at] = byte(at % 251)
	}
	exchange(connection, large)
	say("%d bytes both ways", len(large))
	must("half-close", connection.(closeWriter).CloseWrite())
	rest, err := io.ReadAll(connection)
	must("read", err)
	say("the end, after %q", rest)
	must("close", connection.Close())
}

// Reads to the end of the other direction, and answers.
func answer(path string) {
	connection := dial(path)
	all, err := io.ReadAll(connection)
	must("read", err)
	say("end after %d", len(all))
	_, err = connection.Write([]byte("answer"))
	must("write", err)
	must("close", connection.Close())
}

func main() {
	path := os.Args[2]
	logPath = os.Args[3]
	switch os.Args[1] {
	case "serve":
		serve(path, true)
	case "serve-bytes":
		serve(path, false)
	case "talk":
		talk(path)
	case "answer":
		answer(path)
	}
}
