// spiffeclient drives go-spiffe, an independent client of the SPIFFE Workload API, and says what it sees as one JSON
// object on each line.
//
//	spiffeclient fetch                                  certificates, X.509 bundles and JWT bundles, once each
//	spiffeclient watch  -for 10s                        certificates and bundles as they change, and every error
//	spiffeclient jwt    -aud a,b [-sub spiffe://..]     tokens, each validated by the server and by go-spiffe
//	spiffeclient validate -aud a -token T               one token, both ways
//	spiffeclient wit                                    the profile that is not served
//	spiffeclient serve  -addr 127.0.0.1:0 -peer spiffe://..      an mTLS server
//	spiffeclient call   -addr .. -peer spiffe://.. -for 10s      an mTLS client, a new connection for each call
//
// The socket is that of -socket or of SPIFFE_ENDPOINT_SOCKET.
package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/status"
)

type line map[string]any

var output sync.Mutex

func say(event string, more line) {
	more["event"] = event
	text, err := json.Marshal(more)
	if err != nil {
		panic(err)
	}
	output.Lock()
	defer output.Unlock()
	fmt.Println(string(text))
}

func sayError(event string, err error) {
	say(event, line{"code": status.Code(err).String(), "error": err.Error()})
}

func fail(err error) {
	sayError("failed", err)
	os.Exit(1)
}

func serialOf(certificate *x509.Certificate) string {
	return fmt.Sprintf("%x", certificate.SerialNumber)
}

func sayContext(c *workloadapi.X509Context) {
	svids := []line{}
	for _, s := range c.SVIDs {
		// The way a peer would.
		_, _, err := x509svid.Verify(s.Certificates, c.Bundles)
		svids = append(svids, line{
			"id": s.ID.String(), "hint": s.Hint, "serial": serialOf(s.Certificates[0]),
			"chain": len(s.Certificates), "verified": err == nil,
		})
	}
	say("x509", line{"svids": svids, "bundles": sizes(c.Bundles)})
}

func sizes(set *x509bundle.Set) map[string]int {
	found := map[string]int{}
	for _, b := range set.Bundles() {
		found[b.TrustDomain().Name()] = len(b.X509Authorities())
	}
	return found
}

func keyIDs(set *jwtbundle.Set) map[string][]string {
	found := map[string][]string{}
	for _, b := range set.Bundles() {
		found[b.TrustDomain().Name()] = []string{}
		for id := range b.JWTAuthorities() {
			found[b.TrustDomain().Name()] = append(found[b.TrustDomain().Name()], id)
		}
	}
	return found
}

type watcher struct{}

func (watcher) OnX509ContextUpdate(c *workloadapi.X509Context) { sayContext(c) }
func (watcher) OnX509ContextWatchError(err error) {
	if !errors.Is(err, context.Canceled) && status.Code(err).String() != "Canceled" {
		sayError("watch_error", err)
	}
}

func (watcher) OnJWTBundlesUpdate(set *jwtbundle.Set) { say("jwt_bundles", line{"keys": keyIDs(set)}) }
func (watcher) OnJWTBundlesWatchError(error)          {}

func (watcher) OnX509BundlesUpdate(set *x509bundle.Set) {
	say("x509_bundles", line{"bundles": sizes(set)})
}
func (watcher) OnX509BundlesWatchError(error) {}

func main() {
	if len(os.Args) < 2 {
		fail(errors.New("a mode is needed"))
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	socket := flags.String("socket", "", "address of the Workload API; SPIFFE_ENDPOINT_SOCKET when it is empty")
	lasting := flags.Duration("for", 30*time.Second, "stop after this long")
	audiences := flags.String("aud", "test", "audiences, comma-separated")
	subject := flags.String("sub", "", "ask for this SPIFFE ID")
	token := flags.String("token", "", "token to validate")
	address := flags.String("addr", "127.0.0.1:0", "where to listen, or whom to call")
	peer := flags.String("peer", "", "SPIFFE ID that the peer must have")
	flags.Parse(os.Args[2:])

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *lasting)
	defer cancel()
	options := []workloadapi.ClientOption{}
	if *socket != "" {
		options = append(options, workloadapi.WithAddr(*socket))
	}
	switch os.Args[1] {
	case "fetch":
		fetch(ctx, options)
	case "watch":
		watch(ctx, options)
	case "jwt":
		mint(ctx, strings.Split(*audiences, ","), *subject, options)
	case "validate":
		if !validate(ctx, *token, strings.Split(*audiences, ",")[0], options) {
			os.Exit(1)
		}
	case "wit":
		client := connect(ctx, options)
		defer client.Close()
		_, err := client.FetchWITSVID(ctx, "")
		sayError("wit", err)
	case "serve":
		serve(ctx, *address, spiffeid.RequireFromString(*peer), options)
	case "call":
		call(ctx, *address, spiffeid.RequireFromString(*peer), options)
	default:
		fail(errors.New("the mode is not known"))
	}
}

func connect(ctx context.Context, options []workloadapi.ClientOption) *workloadapi.Client {
	client, err := workloadapi.New(ctx, options...)
	if err != nil {
		fail(err)
	}
	return client
}

func fetch(ctx context.Context, options []workloadapi.ClientOption) {
	client := connect(ctx, options)
	defer client.Close()
	certificates, err := client.FetchX509Context(ctx)
	if err != nil {
		fail(err)
	}
	sayContext(certificates)
	bundles, err := client.FetchX509Bundles(ctx)
	if err != nil {
		fail(err)
	}
	say("x509_bundles", line{"bundles": sizes(bundles)})
	keys, err := client.FetchJWTBundles(ctx)
	if err != nil {
		fail(err)
	}
	say("jwt_bundles", line{"keys": keyIDs(keys)})
}

func watch(ctx context.Context, options []workloadapi.ClientOption) {
	client := connect(ctx, options)
	defer client.Close()
	go client.WatchJWTBundles(ctx, watcher{})
	go client.WatchX509Bundles(ctx, watcher{})
	err := client.WatchX509Context(ctx, watcher{})
	say("watch_end", line{"code": status.Code(err).String()})
}

func mint(ctx context.Context, audiences []string, subject string, options []workloadapi.ClientOption) {
	params := jwtsvid.Params{Audience: audiences[0], ExtraAudiences: audiences[1:]}
	if subject != "" {
		params.Subject = spiffeid.RequireFromString(subject)
	}
	svids, err := workloadapi.FetchJWTSVIDs(ctx, params, options...)
	if err != nil {
		fail(err)
	}
	for _, s := range svids {
		say("jwt", line{"id": s.ID.String(), "hint": s.Hint, "aud": s.Audience, "token": s.Marshal()})
		if !validate(ctx, s.Marshal(), audiences[0], options) {
			os.Exit(1)
		}
	}
}

// validate asks the server, and go-spiffe with the bundles that the server hands out.
func validate(ctx context.Context, token, audience string, options []workloadapi.ClientOption) bool {
	byServer, err := workloadapi.ValidateJWTSVID(ctx, token, audience, options...)
	if err != nil {
		sayError("refused_by_server", err)
	} else {
		say("validated_by_server", line{"id": byServer.ID.String()})
	}
	bundles, failure := workloadapi.FetchJWTBundles(ctx, options...)
	if failure != nil {
		fail(failure)
	}
	here, failure := jwtsvid.ParseAndValidate(token, bundles, []string{audience})
	if failure != nil {
		sayError("refused_here", failure)
	} else {
		say("validated_here", line{"id": here.ID.String()})
	}
	return err == nil && failure == nil
}

func source(ctx context.Context, options []workloadapi.ClientOption) *workloadapi.X509Source {
	found, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(options...))
	if err != nil {
		fail(err)
	}
	return found
}

func serve(ctx context.Context, address string, peer spiffeid.ID, options []workloadapi.ClientOption) {
	own := source(ctx, options)
	defer own.Close()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		fail(err)
	}
	server := &http.Server{
		TLSConfig: tlsconfig.MTLSServerConfig(own, own, tlsconfig.AuthorizeID(peer)),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			say("request", line{"serial": serialOf(r.TLS.PeerCertificates[0])})
			io.WriteString(w, "hello")
		}),
	}
	go func() {
		<-ctx.Done()
		server.Close()
	}()
	say("serving", line{"addr": listener.Addr().String()})
	server.ServeTLS(listener, "", "")
}

func call(ctx context.Context, address string, peer spiffeid.ID, options []workloadapi.ClientOption) {
	own := source(ctx, options)
	defer own.Close()
	client := &http.Client{
		Timeout: 5 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig:   tlsconfig.MTLSClientConfig(own, own, tlsconfig.AuthorizeID(peer)),
			DisableKeepAlives: true,
		},
	}
	passed, failed := 0, 0
	last := ""
	for ctx.Err() == nil {
		response, err := client.Get("https://" + address + "/")
		if err != nil {
			failed++
			sayError("call_failed", err)
		} else {
			passed++
			io.Copy(io.Discard, response.Body)
			response.Body.Close()
			if serial := serialOf(response.TLS.PeerCertificates[0]); serial != last {
				last = serial
				say("called", line{"serial": serial})
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	say("calls", line{"passed": passed, "failed": failed})
}
