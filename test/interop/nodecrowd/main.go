// nodecrowd: many nodes in one process, cheap enough not to measure itself. Each has a certificate, an address and a
// connection of its own, holds one stream of its view, and comes back as an agent does: after full jitter from a quarter of
// a second to ten, and it gives up a connection that does not come about within ten.
//
//	nodecrowd -addr 127.0.0.1:7444 -nodes nodes.json
//
// It is told on standard input, a line each: `mark` (from now on it counts), `report` (one line of JSON).
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

const (
	method      = "/countersign.node.v1.Node/WatchView"
	connectTime = 10 * time.Second
	viewTime    = 60 * time.Second
)

type node struct {
	Address     string `json:"address"`
	Certificate string `json:"certificate"`
	PrivateKey  string `json:"privateKey"`
}

// As FromAgents of bench/sds/agents.ts.
type report struct {
	Watching    int            `json:"watching"`
	BackAtMs    []int64        `json:"backAtMs"`
	Connections int            `json:"connections"`
	InVain      int            `json:"inVain"`
	Standing    int            `json:"standing"`
	MostWaiting int            `json:"mostWaiting"`
	Failures    map[string]int `json:"failures"`
}

var (
	mutex sync.Mutex
	now   = report{BackAtMs: []int64{}, Failures: map[string]int{}}
)

func tell(change func(*report)) {
	mutex.Lock()
	defer mutex.Unlock()
	change(&now)
	now.MostWaiting = max(now.MostWaiting, now.Standing-now.Watching)
}

func main() {
	addr := flag.String("addr", "", "of the node API, host:port")
	file := flag.String("nodes", "", "JSON: a list of address, certificate and privateKey, PEM")
	flag.Parse()
	nodes := readNodes(*file)
	for _, each := range nodes {
		go run(*addr, each)
		// Not all at once: how they come the first time is not what is measured.
		time.Sleep(10 * time.Millisecond)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if lines.Text() == "mark" {
			tell(func(r *report) {
				*r = report{Watching: r.Watching, Standing: r.Standing, BackAtMs: []int64{}, Failures: map[string]int{}}
			})
			continue
		}
		mutex.Lock()
		text, err := json.Marshal(now)
		mutex.Unlock()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(text))
	}
}

func run(addr string, each node) {
	pair, err := tls.X509KeyPair([]byte(each.Certificate), []byte(each.PrivateKey))
	if err != nil {
		log.Fatal(err)
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{pair},
		MinVersion:   tls.VersionTLS13,
		// Whether the server is the right one is measured nowhere here.
		InsecureSkipVerify: true,
	}
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(each.Address)}}
	for failures := 0; ; {
		hadView, err := watch(addr, dialer, config)
		if hadView {
			failures = 0
		}
		failures++
		tell(func(r *report) { r.Failures[kindOf(err)]++ })
		longest := min(10*time.Second, 250*time.Millisecond<<min(failures, 16))
		time.Sleep(time.Duration(rand.Float64() * float64(longest)))
	}
}

// Returns when the stream has ended, and whether there was a view.
func watch(addr string, dialer *net.Dialer, config *tls.Config) (hadView bool, err error) {
	connection, err := grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(credentials.NewTLS(config.Clone())),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx, dialer, addr) }),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: time.Hour, MaxDelay: time.Hour}, MinConnectTimeout: connectTime}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{}), grpc.MaxCallRecvMsgSize(64<<20)),
		grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(4<<10))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	if err := connect(connection); err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	late := time.AfterFunc(viewTime, cancel)
	stream, err := connection.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method)
	if err != nil {
		return false, err
	}
	if err := stream.SendMsg(&[]byte{}); err != nil {
		return false, err
	}
	if err := stream.CloseSend(); err != nil {
		return false, err
	}
	for {
		var view []byte
		if err := stream.RecvMsg(&view); err != nil {
			if hadView {
				tell(func(r *report) { r.Watching-- })
			}
			return hadView, err
		}
		if !hadView {
			late.Stop()
			tell(func(r *report) {
				r.Watching++
				r.BackAtMs = append(r.BackAtMs, time.Now().UnixMilli())
			})
		}
		hadView = true
	}
}

func connect(connection *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(context.Background(), connectTime)
	defer cancel()
	connection.Connect()
	for {
		state := connection.GetState()
		switch state {
		case connectivity.Ready:
			return nil
		case connectivity.TransientFailure:
			return errors.New("cannot connect")
		}
		if !connection.WaitForStateChange(ctx, state) {
			return errors.New("no connection within 10 s")
		}
	}
}

func dial(ctx context.Context, dialer *net.Dialer, addr string) (net.Conn, error) {
	tell(func(r *report) { r.Connections++ })
	made, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	tell(func(r *report) { r.Standing++ })
	return &counted{Conn: made}, nil
}

// A connection that is counted while it stands.
type counted struct {
	net.Conn
	once sync.Once
}

func (c *counted) Close() error {
	c.once.Do(func() {
		tell(func(r *report) {
			r.Standing--
			r.InVain++
		})
	})
	return c.Conn.Close()
}

// Nobody here reads what is in a view.
type rawCodec struct{}

func (rawCodec) Name() string                       { return "proto" }
func (rawCodec) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error { *v.(*[]byte) = data; return nil }

func kindOf(err error) string {
	if s, ok := status.FromError(err); ok && s.Code() != codes.OK {
		return fmt.Sprintf("%s: %.80s", s.Code(), s.Message())
	}
	return err.Error()
}

func readNodes(file string) []node {
	text, err := os.ReadFile(file)
	if err != nil {
		log.Fatal(err)
	}
	var nodes []node
	if err := json.Unmarshal(text, &nodes); err != nil {
		log.Fatal(err)
	}
	return nodes
}
