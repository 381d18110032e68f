// jwtclient holds JWT-SVIDs and bundle documents against go-spiffe and go-jose.
//
//	jwtclient check FILE          judges every token of FILE, one line each: its SPIFFE ID, or why not
//	jwtclient make TD AUDIENCE    prints a bundle and tokens, one for each algorithm, made by go-spiffe and go-jose
//
// FILE is JSON: {trustDomain, bundle, jwtBundle, oidcKeys, tokens: [{token, audience}]}; the three documents are text.
package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
)

type input struct {
	TrustDomain string
	Bundle      string
	JwtBundle   string
	OidcKeys    string
	Tokens      []struct{ Token, Audience string }
}

func main() {
	switch {
	case len(os.Args) == 3 && os.Args[1] == "check":
		check(os.Args[2])
	case len(os.Args) == 4 && os.Args[1] == "make":
		produce(spiffeid.RequireTrustDomainFromString(os.Args[2]), os.Args[3])
	default:
		fmt.Fprintln(os.Stderr, "jwtclient check FILE | jwtclient make TRUST_DOMAIN AUDIENCE")
		os.Exit(2)
	}
}

func check(file string) {
	text, err := os.ReadFile(file)
	must(err)
	var in input
	must(json.Unmarshal(text, &in))
	td := spiffeid.RequireTrustDomainFromString(in.TrustDomain)

	bundle, err := spiffebundle.Parse(td, []byte(in.Bundle))
	must(err)
	sequence, _ := bundle.SequenceNumber()
	hint, _ := bundle.RefreshHint()
	fmt.Printf("bundle x509=%d jwt=%d sequence=%d hint=%s\n",
		len(bundle.X509Authorities()), len(bundle.JWTAuthorities()), sequence, hint)
	set, err := jwtbundle.Parse(td, []byte(in.JwtBundle))
	must(err)
	fmt.Printf("jwt bundle jwt=%d\n", len(set.JWTAuthorities()))

	var keys jose.JSONWebKeySet
	must(json.Unmarshal([]byte(in.OidcKeys), &keys))
	for _, key := range keys.Keys {
		fmt.Printf("oidc key %s use=%s alg=%s valid=%t public=%t\n", key.KeyID, key.Use, key.Algorithm, key.Valid(), key.IsPublic())
	}

	for i, t := range in.Tokens {
		for name, source := range map[string]jwtbundle.Source{"bundle": bundle, "jwt bundle": set} {
			svid, err := jwtsvid.ParseAndValidate(t.Token, source, []string{t.Audience})
			if err != nil {
				fmt.Printf("token %d by %s: refused: %v\n", i, name, err)
				continue
			}
			fmt.Printf("token %d by %s: %s %v until %s\n", i, name, svid.ID, svid.Audience, svid.Expiry.UTC().Format(time.RFC3339))
		}
		// As an OIDC relying party does: the key is found by kid, its alg is the one permitted.
		parsed, err := jwt.ParseSigned(t.Token, []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.RS256})
		if err != nil {
			fmt.Printf("token %d by oidc: refused: %v\n", i, err)
			continue
		}
		var claims jwt.Claims
		verdict := "no key"
		for _, key := range keys.Key(parsed.Headers[0].KeyID) {
			if err := parsed.Claims(key.Key, &claims); err != nil {
				verdict = err.Error()
			} else if key.Algorithm == parsed.Headers[0].Algorithm {
				verdict = fmt.Sprintf("%s iss=%s", claims.Subject, claims.Issuer)
			}
		}
		fmt.Printf("token %d by oidc: %s\n", i, verdict)
	}
}

type output struct {
	Bundle string            `json:"bundle"`
	Tokens map[string]string `json:"tokens"`
}

func produce(td spiffeid.TrustDomain, audience string) {
	bundle := spiffebundle.New(td)
	bundle.SetSequenceNumber(42)
	bundle.SetRefreshHint(5 * time.Minute)
	out := output{Tokens: map[string]string{}}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	signers := map[jose.SignatureAlgorithm]crypto.Signer{}
	for _, alg := range []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512} {
		signers[alg] = rsaKey
	}
	for alg, curve := range map[jose.SignatureAlgorithm]elliptic.Curve{
		jose.ES256: elliptic.P256(), jose.ES384: elliptic.P384(), jose.ES512: elliptic.P521(),
	} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		must(err)
		signers[alg] = key
	}
	now := time.Now()
	for alg, signer := range signers {
		kid := "kid-" + string(alg)
		must(bundle.AddJWTAuthority(kid, signer.Public()))
		key := jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: signer, KeyID: kid}}
		made, err := jose.NewSigner(key, (&jose.SignerOptions{}).WithType("JWT"))
		must(err)
		token, err := jwt.Signed(made).Claims(jwt.Claims{
			Subject:  td.ID().String() + "/go",
			Audience: jwt.Audience{audience},
			IssuedAt: jwt.NewNumericDate(now),
			Expiry:   jwt.NewNumericDate(now.Add(5 * time.Minute)),
		}).Serialize()
		must(err)
		out.Tokens[string(alg)] = token
	}
	text, err := bundle.Marshal()
	must(err)
	out.Bundle = string(text)
	must(json.NewEncoder(os.Stdout).Encode(out))
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "jwtclient:", err)
		os.Exit(1)
	}
}
