package supervisor

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"netlify-supabase-kv/pkg/blobs/blobstest"
	"netlify-supabase-kv/scripts/platform/internal/bundle"
	"netlify-supabase-kv/scripts/platform/internal/envfile"
	"netlify-supabase-kv/scripts/platform/internal/host"
	"netlify-supabase-kv/scripts/platform/internal/ports"
	"netlify-supabase-kv/scripts/platform/internal/postgres"
	"netlify-supabase-kv/scripts/platform/internal/proc"
	"netlify-supabase-kv/scripts/platform/internal/rest"
)

// The names of the parts.
const (
	partPostgres   = "postgres"
	partMigrations = "migrations"
	partPostgREST  = "postgrest"
	partBlobs      = "blobs"
	partHost       = "host"
)

// startDatabase brings up Postgres, the schema, PostgREST and the gateway.
func (s *supervisor) startDatabase(ctx context.Context) error {
	if err := s.during(partPostgres, "starting Postgres", func() (string, error) { return s.startPostgres(ctx) }); err != nil {
		return err
	}
	if err := s.migrate(ctx); err != nil {
		return err
	}
	return s.during(partPostgREST, "starting PostgREST", func() (string, error) { return s.startREST(ctx) })
}

func (s *supervisor) startPostgres(ctx context.Context) (string, error) {
	native, err := postgres.Native(s.spec.Postgres.Modules)
	if err != nil {
		return "", err
	}
	if s.cluster, err = postgres.Prepare(ctx, s.home, native, s.spec.Postgres.Major, s.spec.Ports.Postgres, s.secrets.Passwords); err != nil {
		return "", err
	}
	log, err := s.openLog("postgres")
	if err != nil {
		return "", err
	}
	// A fast shutdown writes everything out, which takes a while after a large load.
	s.keep(&proc.Child{Name: "Postgres", Command: s.cluster.Command, Stop: s.cluster.Stop, Grace: time.Minute, Output: log}, partPostgres)
	if err := s.cluster.WaitReady(ctx); err != nil {
		return "", fmt.Errorf("%w; see %s", err, s.home.Log("postgres"))
	}
	if err := s.cluster.Bootstrap(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("started    Postgres %s at %s", s.spec.Postgres.Major, ports.Address(s.spec.Ports.Postgres)), nil
}

// nothingApplied is what there is to say when the schema is up to date.
const nothingApplied = "applied    no new migrations"

// migrate applies what is new in supabase/migrations.
func (s *supervisor) migrate(ctx context.Context) error {
	return s.during(partMigrations, "applying migrations", func() (string, error) {
		applied, changed, err := s.cluster.Migrate(ctx, s.checkout.Migrations())
		if err != nil {
			return "", err
		}
		done := nothingApplied
		if len(applied) > 0 {
			done = fmt.Sprintf("applied    %d migrations, up to %s", len(applied), applied[len(applied)-1])
		}
		s.change(func(state *State) { state.part(partMigrations).Warning = changedWarning(changed) })
		return done, nil
	})
}

// changedWarning is for whoever edits a migration: what was applied once is not applied again.
func changedWarning(files []string) string {
	if len(files) == 0 {
		return ""
	}
	return "WARNING    edited after it was applied, so not what runs (make reset applies all anew): " + strings.Join(files, ", ")
}

func (s *supervisor) startREST(ctx context.Context) (string, error) {
	program, err := rest.Find(s.spec.Modules)
	if err != nil {
		return "", err
	}
	s.rest = rest.PostgREST{Program: program, Database: s.cluster.AuthenticatorURL(), JWTSecret: s.secrets.Keys.JWTSecret,
		Port: s.spec.Ports.PostgREST, AdminPort: s.spec.Ports.Admin}
	log, err := s.openLog("postgrest")
	if err != nil {
		return "", err
	}
	s.keep(&proc.Child{Name: "PostgREST", Command: s.rest.Command, Output: log}, partPostgREST)
	if err := s.rest.WaitReady(ctx); err != nil {
		return "", fmt.Errorf("%w; see %s", err, s.home.Log("postgrest"))
	}
	gateway, err := rest.NewGateway(ports.URL(s.spec.Ports.PostgREST), s.secrets.Keys, s.log)
	if err != nil {
		return "", err
	}
	return "started    PostgREST behind " + s.supabaseURL() + "/rest/v1", s.listen(s.spec.Ports.Gateway, gateway)
}

// followDatabase applies new migrations to a database that runs, and waits until PostgREST is well.
func (s *supervisor) followDatabase(ctx context.Context) error {
	if err := s.cluster.WaitReady(ctx); err != nil {
		return err
	}
	if err := s.migrate(ctx); err != nil {
		return err
	}
	return s.rest.WaitReady(ctx)
}

// startBlobs opens the stand-in for Netlify Blobs.
func (s *supervisor) startBlobs() error {
	return s.during(partBlobs, "starting the Blobs stand-in", func() (string, error) {
		server, err := blobstest.Open(s.home.Blobs(), blobstest.Options{})
		if err != nil {
			return "", err
		}
		s.stops = append(s.stops, func() { _ = server.Close() })
		address := ports.URL(s.spec.Ports.Blobs)
		access := server.Access(address)
		s.access = &access
		s.site = host.Site{ID: access.SiteID, Context: "dev", Blobs: access.Event}
		return "started    the Blobs stand-in at " + address, s.listen(s.spec.Ports.Blobs, server)
	})
}

// startHost makes the function host, and waits until every function is ready.
func (s *supervisor) startHost(ctx context.Context) error {
	config, err := host.ReadConfig(s.checkout.NetlifyTOML())
	if err != nil {
		return err
	}
	log, err := s.openLog("functions")
	if err != nil {
		return err
	}
	s.host = host.New(host.Options{
		RuntimeAddress: ports.Address(s.spec.Ports.Control),
		Instances:      s.spec.Instances,
		Timeout:        s.spec.Timeout,
		Config:         config,
		Site:           s.site,
		PublishDir:     filepath.Join(s.checkout.Root, config.Publish),
		Output:         log,
		Log:            s.log,
	})
	s.runtime.Store(s.host)
	s.stops = append(s.stops, s.host.Close)
	if err := s.listen(s.spec.Ports.Host, s.host); err != nil {
		return err
	}
	return s.applyFunctions(ctx)
}

// applyFunctions makes the host run the build and the variables of the spec.
func (s *supervisor) applyFunctions(ctx context.Context) error {
	return s.during(partHost, "starting functions", func() (string, error) {
		config, err := host.ReadConfig(s.checkout.NetlifyTOML())
		if err != nil {
			return "", err
		}
		s.host.Reconfigure(config, s.site)
		built, err := bundle.Functions(s.spec.Build)
		if err != nil {
			return "", err
		}
		programs := map[string]host.Program{}
		for name, path := range built {
			programs[name] = host.Program{Path: path, Env: s.functionEnv()}
		}
		ready, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		if err := s.host.Apply(ready, programs); err != nil {
			return "", fmt.Errorf("%w; see %s", err, s.home.Log("functions"))
		}
		return fmt.Sprintf("started    %d functions, %d instances each, at %s", len(programs), s.spec.Instances, ports.URL(s.spec.Ports.Host)), nil
	})
}

// functionEnv is what each function finds in its environment beside what Lambda sets.
func (s *supervisor) functionEnv() map[string]string {
	env := cloned(s.spec.Functions)
	for _, p := range s.supabaseEnv() {
		env[p.Key] = p.Value
	}
	return env
}

func (s *supervisor) supabaseURL() string {
	if s.spec.Supabase != nil {
		return s.spec.Supabase.URL
	}
	return ports.URL(s.spec.Ports.Gateway)
}

// supabaseEnv is how functions reach Supabase: with the kind of key that new projects have.
func (s *supervisor) supabaseEnv() []envfile.Pair {
	key, anon := s.secrets.Keys.Secret, s.secrets.Keys.Anon
	if s.spec.Supabase != nil {
		key, anon = s.spec.Supabase.Key, s.spec.Supabase.AnonKey
	}
	return []envfile.Pair{{Key: "SUPABASE_URL", Value: s.supabaseURL()}, {Key: "SUPABASE_SERVICE_ROLE_KEY", Value: key}, {Key: "SUPABASE_ANON_KEY", Value: anon}}
}

// writeEnv writes the file that people source and tests read.
func (s *supervisor) writeEnv() error {
	pairs := s.supabaseEnv()
	if s.spec.Supabase == nil {
		pairs = append(pairs,
			envfile.Pair{Key: "SUPABASE_SERVICE_ROLE_JWT", Value: s.secrets.Keys.ServiceRole}, // the key of an older project
			envfile.Pair{Key: "SUPABASE_JWT_SECRET", Value: s.secrets.Keys.JWTSecret},
			envfile.Pair{Key: "DATABASE_URL", Value: s.cluster.URL()},
			envfile.Pair{Key: "DATABASE_AUTHENTICATOR_URL", Value: s.cluster.AuthenticatorURL()},
			envfile.Pair{Key: "DATABASE_ADMIN_URL", Value: s.cluster.AdminURL()})
	}
	pairs = append(pairs,
		envfile.Pair{Key: "KV_BASE_URL", Value: ports.URL(s.spec.Ports.Host)},
		envfile.Pair{Key: "KV_HOST_URL", Value: ports.URL(s.spec.Ports.Host)},
		envfile.Pair{Key: "KV_DEV_URL", Value: fmt.Sprintf("http://localhost:%d", s.spec.Ports.Dev)},
		envfile.Pair{Key: "NETLIFY_SITE_ID", Value: s.access.SiteID},
		envfile.Pair{Key: "NETLIFY_BLOBS_TOKEN", Value: s.access.APIToken},
		envfile.Pair{Key: "NETLIFY_BLOBS_API_URL", Value: s.access.APIURL},
		envfile.Pair{Key: "NETLIFY_BLOBS_EVENT", Value: s.access.Event},
		envfile.Pair{Key: "PLATFORM_LOGS", Value: s.home.Logs()},
		envfile.Pair{Key: "PLATFORM_STATE", Value: s.home.State()}) // which names the processes, for tests that end them
	for _, name := range []string{"KV_API_TOKEN", "KV_READ_TOKEN"} { // whoever calls the functions needs them
		if token := s.spec.Functions[name]; token != "" {
			pairs = append(pairs, envfile.Pair{Key: name, Value: token})
		}
	}
	return envfile.Write(s.home.Env(), "Addresses and keys of the local platform, while it runs. Secret: they open its database.", pairs)
}
