// Reads a revocation list (DER) with Go's crypto/x509, verifies it with its CA (PEM), and prints what it says.
package main

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log"
	"os"
	"time"
)

type entry struct {
	Serial    string    `json:"serial"`
	RevokedAt time.Time `json:"revokedAt"`
	Reason    int       `json:"reason"`
}

type list struct {
	Number     string    `json:"number"`
	Issuer     string    `json:"issuer"`
	KeyID      string    `json:"keyId"`
	ThisUpdate time.Time `json:"thisUpdate"`
	NextUpdate time.Time `json:"nextUpdate"`
	Entries    []entry   `json:"entries"`
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: crlclient list.der ca.pem")
	}
	read, err := readList(os.Args[1], os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(read); err != nil {
		log.Fatal(err)
	}
}

func readList(listFile, caFile string) (*list, error) {
	der, err := os.ReadFile(listFile)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("the CA is no PEM")
	}
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	crl, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, err
	}
	if err := crl.CheckSignatureFrom(ca); err != nil {
		return nil, err
	}
	read := &list{
		Number:     crl.Number.String(),
		Issuer:     crl.Issuer.String(),
		KeyID:      hex.EncodeToString(crl.AuthorityKeyId),
		ThisUpdate: crl.ThisUpdate,
		NextUpdate: crl.NextUpdate,
		Entries:    []entry{},
	}
	for _, one := range crl.RevokedCertificateEntries {
		read.Entries = append(read.Entries, entry{
			Serial:    hex.EncodeToString(one.SerialNumber.Bytes()),
			RevokedAt: one.RevocationTime,
			Reason:    one.ReasonCode,
		})
	}
	return read, nil
}
