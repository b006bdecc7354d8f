package supervisor

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"netlify-supabase-kv/pkg/blobs/blobstest"
	"netlify-supabase-kv/scripts/platform/internal/bundle"
	"netlify-supabase-kv/scripts/platform/internal/envfile"
	"netlify-supabase-kv/scripts/platform/internal/host"
	"netlify-supabase-kv/scripts/platform/internal/ports"
	"netlify-supabase-kv/scripts/platform/internal/postgres"
	"netlify-supabase-kv/scripts/platform/internal/postgrest"
	"netlify-supabase-kv/scripts/platform/internal/proc"
)

// startDatabase brings up Postgres, the schema, PostgREST and the gateway.
func (p *Platform) startDatabase(ctx context.Context) error {
	if err := p.step("starting Postgres", func() (string, error) { return p.startPostgres(ctx) }); err != nil {
		return err
	}
	if err := p.migrate(ctx); err != nil {
		return err
	}
	return p.step("starting PostgREST", func() (string, error) { return p.startPostgREST(ctx) })
}

func (p *Platform) startPostgres(ctx context.Context) (string, error) {
	native, err := postgres.Native(p.Spec.Postgres.Modules)
	if err != nil {
		return "", err
	}
	if p.cluster, err = postgres.Prepare(ctx, p.Home, native, p.Spec.Postgres.Major, p.Spec.Ports.Postgres, p.secrets.Passwords); err != nil {
		return "", err
	}
	p.cluster.Unsynced = p.Spec.Postgres.Unsynced
	log, err := p.openLog("postgres", &p.parts)
	if err != nil {
		return "", err
	}
	// A fast shutdown writes everything to disk, which takes a while after a large load.
	p.keep("postgres", &proc.Child{Command: p.cluster.Command, Stop: postgres.FastShutdown, Grace: time.Minute, Output: log})
	if err := p.cluster.WaitReady(ctx); err != nil {
		return "", fmt.Errorf("%w; see %s", err, p.Home.Log("postgres"))
	}
	if err := p.cluster.Bootstrap(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("started    Postgres %s at %s", p.Spec.Postgres.Major, ports.Address(p.Spec.Ports.Postgres)), nil
}

// migrate applies the new files of supabase/migrations.
func (p *Platform) migrate(ctx context.Context) error {
	var changed []string
	err := p.step("applying migrations", func() (_ string, err error) {
		var applied []string
		if applied, changed, err = p.cluster.Migrate(ctx, p.Checkout.Migrations()); err != nil || len(applied) == 0 {
			return "applied    no new migrations", err
		}
		return fmt.Sprintf("applied    %d migrations, up to %s", len(applied), applied[len(applied)-1]), nil
	})
	if len(changed) > 0 {
		p.Out.Line("WARNING    edited after it was applied, so the database does not have the change (make reset, then make up, applies it): %s", strings.Join(changed, ", "))
	}
	return err
}

func (p *Platform) startPostgREST(ctx context.Context) (string, error) {
	program, err := postgrest.Find(p.Spec.Modules)
	if err != nil {
		return "", err
	}
	rest := postgrest.PostgREST{Program: program, Database: p.cluster.AuthenticatorURL(), JWTSecret: p.secrets.Keys.JWTSecret,
		Port: p.Spec.Ports.PostgREST, AdminPort: p.Spec.Ports.Admin}
	log, err := p.openLog("postgrest", &p.parts)
	if err != nil {
		return "", err
	}
	p.keep("postgrest", &proc.Child{Command: rest.Command, Output: log})
	if err := rest.WaitReady(ctx); err != nil {
		return "", fmt.Errorf("%w; see %s", err, p.Home.Log("postgrest"))
	}
	gateway, err := postgrest.NewGateway(ports.URL(p.Spec.Ports.PostgREST), p.secrets.Keys, p.log)
	if err != nil {
		return "", err
	}
	return "started    PostgREST behind " + p.supabaseURL() + "/rest/v1", p.listen(p.Spec.Ports.Gateway, gateway, &p.parts)
}

// startBlobs opens the stand-in for Netlify Blobs.
func (p *Platform) startBlobs() error {
	return p.step("starting the Blobs stand-in", func() (string, error) {
		server, err := blobstest.Open(p.Home.Blobs(), blobstest.Options{})
		if err != nil {
			return "", err
		}
		p.parts.push(func() { _ = server.Close() })
		address := ports.URL(p.Spec.Ports.Blobs)
		p.blobs = server.Access(address)
		return "started    the Blobs stand-in at " + address, p.listen(p.Spec.Ports.Blobs, server, &p.parts)
	})
}

// startFunctions writes the env file, and starts the functions if the platform has any.
func (p *Platform) startFunctions(ctx context.Context) error {
	if err := p.writeEnv(); err != nil || p.Spec.Build == "" {
		return err
	}
	return p.step("starting functions", func() (string, error) {
		programs, err := bundle.Functions(p.Spec.Build)
		if err != nil {
			return "", err
		}
		if err := p.startHost(ctx, programs); err != nil {
			return "", err
		}
		return fmt.Sprintf("started    %d functions, %d instances each, at %s", len(programs), p.Spec.Instances, ports.URL(p.Spec.Ports.Host)), nil
	})
}

// startHost starts the function host, and waits until every function is ready.
func (p *Platform) startHost(ctx context.Context, programs map[string]string) error {
	config, err := host.ReadConfig(p.Checkout.NetlifyTOML())
	if err != nil {
		return err
	}
	log, err := p.openLog("functions", &p.functions)
	if err != nil {
		return err
	}
	h := host.New(host.Options{
		Programs:       programs,
		Env:            p.functionEnv(),
		RuntimeAddress: ports.Address(p.Spec.Ports.Runtime),
		Instances:      p.Spec.Instances,
		Timeout:        p.Spec.Timeout,
		Config:         config,
		Site:           host.Site{ID: p.blobs.SiteID, Context: "dev", Blobs: p.blobs.Event},
		PublishDir:     filepath.Join(p.Checkout.Root, config.Publish),
		Output:         log,
		Log:            p.log,
	})
	if err := p.listen(p.Spec.Ports.Runtime, http.HandlerFunc(h.ServeRuntime), &p.functions); err != nil {
		return err
	}
	p.functions.push(h.Close)
	if err := p.listen(p.Spec.Ports.Host, h, &p.functions); err != nil {
		return err
	}
	ready, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := h.Start(ready); err != nil {
		return fmt.Errorf("%w; see %s", err, p.Home.Log("functions"))
	}
	return nil
}

// functionEnv is the environment of each function, besides what Lambda sets.
func (p *Platform) functionEnv() map[string]string {
	env := maps.Clone(p.Spec.Functions)
	for _, pair := range p.supabaseEnv() {
		env[pair.Key] = pair.Value
	}
	return env
}

func (p *Platform) supabaseURL() string {
	if p.Spec.Supabase != nil {
		return p.Spec.Supabase.URL
	}
	return ports.URL(p.Spec.Ports.Gateway)
}

// supabaseEnv tells functions how to reach Supabase, with the kind of key that new projects have.
func (p *Platform) supabaseEnv() []envfile.Pair {
	key, anon := p.secrets.Keys.Secret, p.secrets.Keys.Anon
	if p.Spec.Supabase != nil {
		key, anon = p.Spec.Supabase.Key, p.Spec.Supabase.AnonKey
	}
	return []envfile.Pair{{Key: "SUPABASE_URL", Value: p.supabaseURL()}, {Key: "SUPABASE_SERVICE_ROLE_KEY", Value: key}, {Key: "SUPABASE_ANON_KEY", Value: anon}}
}

// writeEnv writes the file that people source and tests read.
func (p *Platform) writeEnv() error {
	pairs := p.supabaseEnv()
	if p.Spec.Supabase == nil {
		pairs = append(pairs,
			envfile.Pair{Key: "SUPABASE_SERVICE_ROLE_JWT", Value: p.secrets.Keys.ServiceRole}, // the key of an older project
			envfile.Pair{Key: "SUPABASE_JWT_SECRET", Value: p.secrets.Keys.JWTSecret},
			envfile.Pair{Key: "DATABASE_URL", Value: p.cluster.URL()},
			envfile.Pair{Key: "DATABASE_AUTHENTICATOR_URL", Value: p.cluster.AuthenticatorURL()},
			envfile.Pair{Key: "DATABASE_ADMIN_URL", Value: p.cluster.AdminURL()})
	}
	pairs = append(pairs,
		envfile.Pair{Key: "KV_BASE_URL", Value: ports.URL(p.Spec.Ports.Host)},
		envfile.Pair{Key: "KV_HOST_URL", Value: ports.URL(p.Spec.Ports.Host)},
		envfile.Pair{Key: "KV_DEV_URL", Value: fmt.Sprintf("http://localhost:%d", p.Spec.Ports.Dev)},
		envfile.Pair{Key: "NETLIFY_SITE_ID", Value: p.blobs.SiteID},
		envfile.Pair{Key: "NETLIFY_BLOBS_TOKEN", Value: p.blobs.APIToken},
		envfile.Pair{Key: "NETLIFY_BLOBS_API_URL", Value: p.blobs.APIURL},
		envfile.Pair{Key: "NETLIFY_BLOBS_EVENT", Value: p.blobs.Event},
		envfile.Pair{Key: "PLATFORM_LOGS", Value: p.Home.Logs()},
		envfile.Pair{Key: "PLATFORM_STATE", Value: p.Home.State()}) // names the processes, for tests that kill them
	for _, name := range []string{"KV_API_TOKEN", "KV_READ_TOKEN"} { // callers of the functions need them
		if token := p.Spec.Functions[name]; token != "" {
			pairs = append(pairs, envfile.Pair{Key: name, Value: token})
		}
	}
	return envfile.Write(p.Home.Env(), "Addresses and keys of the local platform, while it runs. Secret: they open its database.", pairs)
}

// Addresses is the summary that a person reads. It has no keys.
func (p *Platform) Addresses() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nSupabase   %s\n", p.supabaseURL())
	if p.Spec.Supabase == nil {
		fmt.Fprintf(&b, "Postgres   %s\n", ports.Address(p.Spec.Ports.Postgres))
	}
	fmt.Fprintf(&b, "Blobs      %s\n", ports.URL(p.Spec.Ports.Blobs))
	if p.Spec.Build != "" {
		fmt.Fprintf(&b, "Functions  %s/api/kv/list\n", ports.URL(p.Spec.Ports.Host))
	}
	fmt.Fprintf(&b, "Keys       %s\nLogs       %s\n", p.Home.Env(), p.Home.Logs())
	return b.String()
}
