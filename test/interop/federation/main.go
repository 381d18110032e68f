// Command federation asks a trust endpoint as other implementations do: go-spiffe's federation package for the bundle,
// go-oidc for the tokens.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
)

func main() {
	mode := flag.String("mode", "spiffe", "spiffe, web or oidc")
	url := flag.String("url", "", "of the bundle, or the issuer")
	trustDomain := flag.String("trust-domain", "", "of the bundle")
	endpointID := flag.String("endpoint-id", "", "SPIFFE ID of the endpoint")
	bundleFile := flag.String("bundle", "", "the bundle known before, a SPIFFE document")
	rootsFile := flag.String("roots", "", "PEM of the web's CAs")
	tokenFile := flag.String("token", "", "file with a token")
	audience := flag.String("audience", "", "of the token")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var err error
	switch *mode {
	case "spiffe":
		err = fetchAsSpiffe(ctx, *url, *trustDomain, *endpointID, *bundleFile)
	case "web":
		err = fetchAsWeb(ctx, *url, *trustDomain, *rootsFile, *tokenFile, *audience)
	case "oidc":
		err = verifyToken(ctx, *url, *rootsFile, *tokenFile, *audience)
	default:
		err = fmt.Errorf("unknown mode %q", *mode)
	}
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func fetchAsSpiffe(ctx context.Context, url, name, id, file string) error {
	td, err := spiffeid.TrustDomainFromString(name)
	if err != nil {
		return err
	}
	endpoint, err := spiffeid.FromString(id)
	if err != nil {
		return err
	}
	known, err := spiffebundle.Load(td, file)
	if err != nil {
		return err
	}
	bundle, err := federation.FetchBundle(ctx, td, url, federation.WithSPIFFEAuth(known, endpoint))
	if err != nil {
		return err
	}
	return show(bundle)
}

func fetchAsWeb(ctx context.Context, url, name, rootsFile, tokenFile, audience string) error {
	td, err := spiffeid.TrustDomainFromString(name)
	if err != nil {
		return err
	}
	roots, err := readRoots(rootsFile)
	if err != nil {
		return err
	}
	bundle, err := federation.FetchBundle(ctx, td, url, federation.WithWebPKIRoots(roots))
	if err != nil {
		return err
	}
	if err := show(bundle); err != nil || tokenFile == "" {
		return err
	}
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		return err
	}
	svid, err := jwtsvid.ParseAndValidate(strings.TrimSpace(string(token)), bundle, []string{audience})
	if err != nil {
		return err
	}
	fmt.Printf("token id=%s\n", svid.ID)
	return nil
}

func verifyToken(ctx context.Context, issuer, rootsFile, tokenFile, audience string) error {
	roots, err := readRoots(rootsFile)
	if err != nil {
		return err
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	ctx = oidc.ClientContext(ctx, &http.Client{Transport: transport})
	provider, err := oidc.NewProvider(ctx, issuer)
	if err != nil {
		return err
	}
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		return err
	}
	config := &oidc.Config{ClientID: audience}
	verified, err := provider.Verifier(config).Verify(ctx, strings.TrimSpace(string(token)))
	if err != nil {
		return err
	}
	fmt.Printf("token issuer=%s subject=%s audience=%v\n", verified.Issuer, verified.Subject, verified.Audience)
	return nil
}

func show(bundle *spiffebundle.Bundle) error {
	sequence, _ := bundle.SequenceNumber()
	hint, _ := bundle.RefreshHint()
	fmt.Printf("bundle trust_domain=%s sequence=%d hint=%s x509=%d jwt=%d\n", bundle.TrustDomain(), sequence, hint,
		len(bundle.X509Authorities()), len(bundle.JWTAuthorities()))
	return nil
}

func readRoots(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", file)
	}
	return pool, nil
}
