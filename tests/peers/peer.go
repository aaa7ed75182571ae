// An echo server and client over Go's own net package: peer server|client PATH.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
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
	_, err = connection.Write(sent)
	check(err)
	check(connection.(*net.UnixConn).CloseWrite())
	received, err := io.ReadAll(connection)
	check(err)
	if !bytes.Equal(received, sent) {
		check(fmt.Errorf("%d bytes", len(received)))
	}
	fmt.Println("ok", len(received))
}
