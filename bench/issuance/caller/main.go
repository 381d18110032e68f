// Command caller is the load of the RPC benchmark:
//
//	caller <socket> <method path> <seconds> <in flight> <connections> [a second]
//
// It reads requests from standard input (base64, one a line), sends them in turn over a few connections, and prints
// {"count","seconds","p50Ms","p99Ms","maxMs","answers"}: `answers` counts those that begin with the same three bytes. A
// first 300 ms are not counted. With a number of calls a second, a call counts from the moment it was due.
package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

type codec struct{}

func (codec) Marshal(v any) ([]byte, error) { return v.([]byte), nil }
func (codec) Unmarshal(data []byte, v any) error {
	out := v.(*[]byte)
	*out = append((*out)[:0], data...)
	return nil
}
func (codec) Name() string { return "proto" }

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "caller:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) < 6 || len(os.Args) > 7 {
		return fmt.Errorf("usage: caller <socket> <method path> <seconds> <in flight> <connections> [a second]")
	}
	socket, method := os.Args[1], os.Args[2]
	var numbers [4]int
	for i := range numbers[:len(os.Args)-3] {
		n, err := strconv.Atoi(os.Args[3+i])
		if err != nil || n < 1 {
			return fmt.Errorf("%q is not a positive number", os.Args[3+i])
		}
		numbers[i] = n
	}
	seconds, inFlight, connections := numbers[0], numbers[1], numbers[2]
	requests, err := readRequests()
	if err != nil {
		return err
	}
	conns := make([]*grpc.ClientConn, connections)
	for i := range conns {
		conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		defer conn.Close()
		conns[i] = conn
	}
	perSecond := numbers[3]
	if _, _, _, err := load(conns, method, requests, inFlight, perSecond, 300*time.Millisecond); err != nil {
		return err
	}
	took, answers, elapsed, err := load(conns, method, requests, inFlight, perSecond, time.Duration(seconds)*time.Second)
	if err != nil {
		return err
	}
	sort.Slice(took, func(a, b int) bool { return took[a] < took[b] })
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"count":   len(took),
		"seconds": elapsed.Seconds(),
		"p50Ms":   float64(took[len(took)/2]) / 1e6,
		"p99Ms":   float64(took[len(took)*99/100]) / 1e6,
		"maxMs":   float64(took[len(took)-1]) / 1e6,
		"answers": answers,
	})
}

func readRequests() ([][]byte, error) {
	var requests [][]byte
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		request, err := base64.StdEncoding.DecodeString(lines.Text())
		if err != nil {
			return nil, err
		}
		requests = append(requests, request)
	}
	if len(requests) == 0 {
		return nil, fmt.Errorf("no requests on standard input")
	}
	return requests, lines.Err()
}

// load keeps `inFlight` calls under way for a while, or makes so many a second with at most `inFlight` under way, and
// answers with how long each took.
func load(conns []*grpc.ClientConn, method string, requests [][]byte, inFlight, perSecond int, span time.Duration) ([]time.Duration, map[string]int, time.Duration, error) {
	var next atomic.Int64
	var wait sync.WaitGroup
	took := make([][]time.Duration, inFlight)
	kinds := make([]map[string]int, inFlight)
	failures := make([]error, inFlight)
	started := time.Now()
	until := started.Add(span)
	for lane := range inFlight {
		kinds[lane] = map[string]int{}
		wait.Go(func() {
			var answer []byte
			conn := conns[lane%len(conns)]
			for {
				number := next.Add(1)
				begun := time.Now()
				if perSecond > 0 {
					begun = started.Add(time.Duration(number) * time.Second / time.Duration(perSecond))
				}
				if !begun.Before(until) {
					return
				}
				if ahead := time.Until(begun); perSecond > 0 && ahead > 0 {
					time.Sleep(ahead)
				}
				request := requests[int(number)%len(requests)]
				err := conn.Invoke(context.Background(), method, request, &answer, grpc.ForceCodec(codec{}))
				if err != nil {
					failures[lane] = err
					return
				}
				took[lane] = append(took[lane], time.Since(begun))
				kinds[lane][string(answer[:min(3, len(answer))])]++
			}
		})
	}
	wait.Wait()
	elapsed := time.Since(started)
	var all []time.Duration
	answers := map[string]int{}
	for lane, err := range failures {
		if err != nil {
			return nil, nil, 0, err
		}
		all = append(all, took[lane]...)
		for start, count := range kinds[lane] {
			answers[fmt.Sprintf("%x", start)] += count
		}
	}
	if len(all) == 0 {
		return nil, nil, 0, fmt.Errorf("no call came to an end")
	}
	return all, answers, elapsed, nil
}
