// The test client is both ends of every check that a cluster's Services, DNS and pod network work: it serves, it asks,
// and it waits. Nothing can be pulled where Slipway is tested, so the image is made from this file.
//
//	probe serve [--port 8080]               answers GET / and GET /healthz with its host name and the caller's address
//	probe get [--timeout 5s] [--insecure] URL   prints the body; exit code 0 for 2xx, 1 otherwise
//	probe resolve [--timeout 5s] NAME       prints the addresses, one a line; exit code 1 if there are none
//	probe sleep [DURATION]                  waits, for ever if no duration is given; ends at once on SIGTERM
package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sort"
	"syscall"
	"time"
)

const usage = "usage: probe serve [--port N] | get [--timeout D] [--insecure] URL | resolve [--timeout D] NAME | sleep [D]"

func main() {
	if len(os.Args) < 2 {
		fail(2, usage)
	}
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	arguments := os.Args[2:]
	switch os.Args[1] {
	case "serve":
		serve(ended, arguments)
	case "get":
		get(ended, arguments)
	case "resolve":
		resolve(ended, arguments)
	case "sleep":
		sleep(ended, arguments)
	default:
		fail(2, usage)
	}
}

func serve(ended context.Context, arguments []string) {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	port := flags.Int("port", 8080, "the port to listen on, all addresses")
	_ = flags.Parse(arguments)
	hostname, err := os.Hostname()
	if err != nil {
		fail(1, "no host name: %v", err)
	}
	answer := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hostname: %s\nclient: %s\n", hostname, r.RemoteAddr)
	}
	routes := http.NewServeMux()
	routes.HandleFunc("/{$}", answer)
	routes.HandleFunc("/healthz", answer)
	server := &http.Server{Addr: fmt.Sprintf(":%d", *port), Handler: routes, ReadHeaderTimeout: 10 * time.Second}
	stopped := make(chan struct{})
	go func() {
		<-ended.Done()
		grace, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = server.Shutdown(grace)
		close(stopped)
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		fail(1, "cannot serve on port %d: %v", *port, err)
	}
	<-stopped
}

func get(ended context.Context, arguments []string) {
	flags := flag.NewFlagSet("get", flag.ExitOnError)
	timeout := flags.Duration("timeout", 5*time.Second, "for the whole request")
	insecure := flags.Bool("insecure", false, "do not verify the server's certificate")
	_ = flags.Parse(arguments)
	if flags.NArg() != 1 {
		fail(2, usage)
	}
	limited, cancel := context.WithTimeout(ended, *timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(limited, http.MethodGet, flags.Arg(0), nil)
	if err != nil {
		fail(2, "%v", err)
	}
	// A fresh connection each time: a check must not be answered by yesterday's backend.
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: *insecure},
	}}
	response, err := client.Do(request)
	if err != nil {
		fail(1, "%v", err)
	}
	defer response.Body.Close()
	if _, err := io.Copy(os.Stdout, response.Body); err != nil {
		fail(1, "the answer broke off: %v", err)
	}
	if response.StatusCode < 200 || response.StatusCode > 299 {
		fail(1, "%s", response.Status)
	}
}

func resolve(ended context.Context, arguments []string) {
	flags := flag.NewFlagSet("resolve", flag.ExitOnError)
	timeout := flags.Duration("timeout", 5*time.Second, "for the whole look-up")
	_ = flags.Parse(arguments)
	if flags.NArg() != 1 {
		fail(2, usage)
	}
	limited, cancel := context.WithTimeout(ended, *timeout)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(limited, flags.Arg(0))
	if err != nil {
		fail(1, "%v", err)
	}
	sort.Strings(addresses)
	for _, address := range addresses {
		fmt.Println(address)
	}
}

func sleep(ended context.Context, arguments []string) {
	if len(arguments) == 0 {
		<-ended.Done()
		return
	}
	wait, err := time.ParseDuration(arguments[0])
	if err != nil {
		fail(2, "%v", err)
	}
	select {
	case <-ended.Done():
	case <-time.After(wait):
	}
}

func fail(code int, format string, values ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", values...)
	os.Exit(code)
}
