// The rival that one would write in an afternoon: the broker's control channel in front of Go's
// net/http/httputil.ReverseProxy.
//
//	rival -upstream URL -key FILE -header NAME [-cacert FILE] COMMAND [ARG...]
//
// It is given what such a proxy needs to do well: enough idle connections to the upstream to keep
// them all, and nothing else that differs from the library as it comes.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"syscall"
)

func main() {
	upstream := flag.String("upstream", "", "origin that requests are sent to")
	keyFile := flag.String("key", "", "file that holds the credential")
	header := flag.String("header", "X-Api-Key", "header that carries the credential")
	caFile := flag.String("cacert", "", "PEM roots in place of the system's")
	flag.Parse()
	status, err := run(*upstream, *keyFile, *header, *caFile, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "rival:", err)
		os.Exit(125)
	}
	os.Exit(status)
}

func run(upstream, keyFile, header, caFile string, command []string) (int, error) {
	if len(command) == 0 {
		return 0, errors.New("no command")
	}
	origin, err := url.Parse(upstream)
	if err != nil {
		return 0, err
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return 0, err
	}
	transport, err := newTransport(caFile)
	if err != nil {
		return 0, err
	}
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(origin)
			r.Out.Header.Set(header, string(bytes.TrimSpace(key)))
		},
	}

	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	dialled := &listener{streams: make(chan net.Conn, 64)}
	go dialled.serveDials(pair[0])
	go (&http.Server{Handler: proxy}).Serve(dialled)

	theirs := os.NewFile(uintptr(pair[1]), "control")
	child := exec.Command(command[0], command[1:]...)
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	child.ExtraFiles = []*os.File{theirs} // becomes descriptor 3
	child.Env = append(os.Environ(), "BROKER_EXEC_FD=3")
	if err := child.Start(); err != nil {
		return 0, err
	}
	theirs.Close()
	var exit *exec.ExitError
	if err := child.Wait(); errors.As(err, &exit) {
		return exit.ExitCode(), nil
	} else if err != nil {
		return 0, err
	}
	return 0, nil
}

func newTransport(caFile string) (*http.Transport, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	transport.MaxIdleConns = 0
	transport.MaxIdleConnsPerHost = 1024
	// Both would change the bytes: the upstream's encoding is passed on as it is, by HTTP/1.1.
	transport.DisableCompression = true
	transport.ForceAttemptHTTP2 = false
	if caFile == "" {
		return transport, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	// Only these: reading the system's roots as well would cost it 12 ms at start-up.
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in " + caFile)
	}
	transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	return transport, nil
}

// listener hands the streams that were dialled to http.Server.
type listener struct{ streams chan net.Conn }

func (l *listener) Accept() (net.Conn, error) {
	if conn, open := <-l.streams; open {
		return conn, nil
	}
	return nil, net.ErrClosed
}
func (l *listener) Close() error   { return nil }
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: "dialled", Net: "unix"} }

// serveDials answers the control channel (version 1) until the command's end is gone.
func (l *listener) serveDials(channel int) {
	datagram := make([]byte, 2)
	for {
		count, _, err := syscall.Recvfrom(channel, datagram, 0)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || count == 0 {
			close(l.streams)
			return
		}
		if count != 1 || datagram[0] != 1 || l.dial(channel) != nil {
			syscall.Sendmsg(channel, []byte{0xff}, nil, nil, syscall.MSG_NOSIGNAL)
		}
	}
}

func (l *listener) dial(channel int) error {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(pair[1])
	ours := os.NewFile(uintptr(pair[0]), "stream")
	defer ours.Close() // FileConn duplicates it
	conn, err := net.FileConn(ours)
	if err != nil {
		return err
	}
	l.streams <- conn
	return syscall.Sendmsg(channel, []byte{1}, syscall.UnixRights(pair[1]), nil, syscall.MSG_NOSIGNAL)
}
