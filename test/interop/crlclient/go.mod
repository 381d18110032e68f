module countersign.dev/crlclient

go 1.24
