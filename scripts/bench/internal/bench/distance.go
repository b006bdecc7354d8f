package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// distant is a gateway to the project with TLS and HTTP/2, as a hosted one has, behind a line with a delay.
type distant struct {
	URL    string
	dir    string // has the root certificates that clients must trust
	server *httptest.Server
	line   net.Listener
}

// environment returns the variables for a function that uses the gateway. The root certificates are in one file, as in
// Lambda's images.
func (d *distant) environment() []string {
	return []string{"SUPABASE_URL=" + d.URL, "SSL_CERT_FILE=" + d.roots(), "SSL_CERT_DIR=" + d.dir + "/none"}
}

func (d *distant) roots() string { return filepath.Join(d.dir, "roots.pem") }

// startDistant starts a gateway to the address, with the given round trip. It stands in for a hosted project: a proxy
// behind a line that delays everything by half a round trip. The line accepts a connection at once, as the kernel does
// here, so the first bytes wait for another round trip, that of the TCP handshake.
func startDistant(address string, roundTrip time.Duration) (*distant, error) {
	target, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	d := &distant{server: httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(target))}
	certificate, err := newCertificate()
	if err != nil {
		return nil, err
	}
	d.server.EnableHTTP2, d.server.TLS = true, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13}
	d.server.StartTLS()
	if d.dir, err = os.MkdirTemp("", "kv-bench-"); err != nil {
		d.Close()
		return nil, err
	}
	roots, _ := os.ReadFile("/etc/ssl/certs/ca-certificates.crt") // on systems without the file, the time to read it is not measured
	roots = append(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]})...)
	if err := os.WriteFile(d.roots(), roots, 0o600); err != nil {
		d.Close()
		return nil, err
	}
	if d.line, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		d.Close()
		return nil, err
	}
	d.URL = "https://" + d.line.Addr().String()
	go d.serve(roundTrip)
	return d, nil
}

// newCertificate creates a certificate with an elliptic curve, as hosted gateways have.
func newCertificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// Close ends the gateway and its connections.
func (d *distant) Close() {
	if d.line != nil {
		_ = d.line.Close()
	}
	d.server.CloseClientConnections()
	d.server.Close()
	_ = os.RemoveAll(d.dir)
}

func (d *distant) serve(roundTrip time.Duration) {
	for {
		near, err := d.line.Accept()
		if err != nil {
			return // closed
		}
		go func() {
			defer func() { _ = near.Close() }()
			far, err := net.Dial("tcp", d.server.Listener.Addr().String())
			if err != nil {
				return
			}
			defer func() { _ = far.Close() }()
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			go func() {
				delay(ctx, near, far, roundTrip/2, 0)
				cancel()
				_ = near.Close()
			}()
			delay(ctx, far, near, roundTrip/2, roundTrip)
		}()
	}
}

// delay copies the data in order, each part after the delay, and not before the line is connected.
func delay(ctx context.Context, to io.Writer, from io.Reader, by, setUp time.Duration) {
	type piece struct {
		due  time.Time
		data []byte
	}
	pieces := make(chan piece, 1024)
	began := time.Now()
	go func() {
		defer close(pieces)
		for {
			data := make([]byte, 32<<10)
			n, err := from.Read(data)
			if n > 0 {
				due := time.Now().Add(by)
				if earliest := began.Add(setUp + by); due.Before(earliest) {
					due = earliest
				}
				select {
				case pieces <- piece{due, data[:n]}:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range pieces {
		select {
		case <-time.After(time.Until(p.due)):
		case <-ctx.Done():
			return
		}
		if _, err := to.Write(p.data); err != nil && !errors.Is(err, net.ErrClosed) {
			return
		}
	}
}
