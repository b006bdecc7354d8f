package preview

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// newLine starts a TCP proxy that delays every byte by oneWay in both directions, with unlimited bandwidth. It returns
// its address.
func newLine(t *testing.T, target string, oneWay time.Duration) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var open sync.WaitGroup
	open.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return // closed
			}
			open.Go(func() { connect(ctx, near, target, oneWay) })
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = listener.Close()
		open.Wait()
	})
	return listener.Addr().String()
}

// connect proxies one connection.
func connect(ctx context.Context, near net.Conn, target string, oneWay time.Duration) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var dialer net.Dialer
	far, err := dialer.DialContext(ctx, "tcp", target)
	if err != nil {
		_ = near.Close()
		return
	}
	stop := context.AfterFunc(ctx, func() { // makes pending reads and writes fail
		_ = near.Close()
		_ = far.Close()
	})
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { carry(ctx, far, near, oneWay) })
	both.Go(func() { carry(ctx, near, far, oneWay) })
	both.Wait()
	_ = near.Close()
	_ = far.Close()
}

// carry copies one direction, each part after the delay, and then closes that direction.
func carry(ctx context.Context, to, from net.Conn, delay time.Duration) {
	type part struct {
		bytes []byte
		due   time.Time
	}
	parts := make(chan part, 1024)
	go func() {
		defer close(parts)
		for {
			buffer := make([]byte, 32<<10)
			n, err := from.Read(buffer)
			if n > 0 {
				select {
				case parts <- part{buffer[:n], time.Now().Add(delay)}:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range parts {
		time.Sleep(time.Until(p.due))
		if _, err := to.Write(p.bytes); err != nil {
			_ = from.Close() // ends the reader
		}
	}
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

func TestALineDelaysWithoutNarrowing(t *testing.T) {
	t.Parallel()
	const oneWay = 50 * time.Millisecond
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	c, err := net.Dial("tcp", newLine(t, echo.Addr().String(), oneWay))
	require.NoError(t, err)
	defer c.Close()
	sent := make([]byte, 1<<20)
	start := time.Now()
	go func() {
		_, _ = c.Write(sent)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, sent, got)
	require.GreaterOrEqual(t, time.Since(start), 2*oneWay)
}
