package doctor

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"netlify-supabase-kv/pkg/config"
	"netlify-supabase-kv/pkg/kv"
)

// Variables are those that the functions read. `kv doctor --env-file` sets them as the file has them, and unsets the others.
var Variables = config.Names(config.Functions{})

// knowsNothing tells whether there are no settings to look at: no file was given, and the environment has none of them.
func (in *Input) knowsNothing() bool {
	return in.Names == nil && !slices.ContainsFunc(Variables, func(name string) bool { return in.Getenv(name) != "" })
}

// unknown is what there is to say then.
var unknown = skip("none of the functions' variables is set here; --env-file takes those of the site")

// inNetlify is where people set them.
const inNetlify = "Netlify: Project configuration, Environment variables; then deploy again"

// isHidden tells whether the value is what Netlify shows in place of one that was marked as secret.
func isHidden(value string) bool { return strings.HasPrefix(value, "****") }

// text is a variable's value as the functions read it, without what pasting leaves around it.
func (in *Input) text(name string) string { return config.Clean(in.Getenv(name)) }

// spoilt says what is wrong with a value as such, as the functions read it. "" if nothing is.
func spoilt(value string) string {
	switch {
	case value != "" && strings.ContainsAny(value[:1]+value[len(value)-1:], `"'`+"`"):
		return "has a quotation mark at one end, which is part of the value"
	case strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "holds a space, a line break or another character that does not belong there"
	}
	return ""
}

func checkVariables(_ context.Context, in *Input) (findings []Finding) {
	if in.knowsNothing() {
		return unknown
	}
	for _, problem := range in.Problems() {
		if !strings.HasPrefix(problem.Error(), "SUPABASE_") { // those have checks of their own
			findings = append(findings, Finding{Fail, problem.Error(), "set it so (" + inNetlify + "): until then the functions answer 503"})
		}
	}
	if len(findings) > 0 {
		return findings
	}
	set := 0
	for _, name := range Variables {
		if in.Getenv(name) != "" {
			set++
		}
	}
	return ok("%d of the functions' %d variables are set; %s", set, len(Variables), in.answering())
}

// answering says which store the variables ask for.
func (in *Input) answering() string {
	switch {
	case in.supabaseFirst() && in.mirrors():
		return "Supabase answers, and Netlify Blobs gets a copy of every write"
	case in.supabaseFirst():
		return "Supabase answers"
	case in.mirrors():
		return "Netlify Blobs answers, and Supabase gets a copy of every write"
	}
	return "Netlify Blobs answers"
}

func (in *Input) stores() (s config.Stores) {
	_ = config.Read(&s, in.Getenv) // what cannot be understood is the business of checkVariables
	return s
}

func (in *Input) supabaseFirst() bool { return in.stores().UseSupabase }
func (in *Input) mirrors() bool       { return in.stores().MirrorWrites }
func (in *Input) compares() bool      { return in.stores().CompareReads > 0 }

func (in *Input) usesSupabase() bool { return in.supabaseFirst() || in.mirrors() || in.compares() }
func (in *Input) usesBlobs() bool    { return !in.supabaseFirst() || in.mirrors() || in.compares() }

// Sizes of all variables' names and values together.
const (
	maxVariableBytes  = 4096 // AWS Lambda's limit, which Netlify passes on for Go functions
	muchVariableBytes = 3584 // Netlify adds some of its own
)

func checkVariablesSize(_ context.Context, in *Input) []Finding {
	if in.knowsNothing() {
		return unknown
	}
	names, of := in.Names, "the site's"
	if names == nil {
		names, of = Variables, "the functions' own"
	}
	type sized struct {
		name  string
		bytes int
	}
	total, each := 0, []sized{}
	for _, name := range names {
		if value := in.Getenv(name); value != "" {
			each = append(each, sized{name, len(name) + len(value)})
			total += len(name) + len(value)
		}
	}
	slices.SortFunc(each, func(a, b sized) int { return b.bytes - a.bytes })
	var largest []string
	for _, v := range each[:min(3, len(each))] {
		largest = append(largest, fmt.Sprintf("%s (%d)", v.name, v.bytes))
	}
	text := fmt.Sprintf("%d bytes in %d variables, %s; %d fit, Netlify's own among them", total, len(each), of, maxVariableBytes)
	switch {
	case total > maxVariableBytes:
		return fail(text+": the deploy fails", "take out of the scope Functions what they do not need; the largest are "+strings.Join(largest, ", "))
	case total > muchVariableBytes:
		return warn(text, "take out of the scope Functions what they do not need; the largest are "+strings.Join(largest, ", "))
	case in.Names == nil:
		return ok("%s; --env-file counts all of a site's", text)
	}
	return ok("%s", text)
}

// shortToken is below what takes too long to guess.
const shortToken = 16

func checkTokens(_ context.Context, in *Input) (findings []Finding) {
	if in.knowsNothing() {
		return unknown
	}
	api, read := in.Getenv("KV_API_TOKEN"), in.Getenv("KV_READ_TOKEN")
	for name, value := range map[string]string{"KV_API_TOKEN": api, "KV_READ_TOKEN": read} {
		findings = append(findings, checkTokenVariable(name, value, slices.Contains(in.Names, name))...)
	}
	switch {
	case len(findings) > 0:
		slices.SortFunc(findings, func(a, b Finding) int { return strings.Compare(a.Text, b.Text) })
		return findings
	case api == "" && read == "":
		return warn("neither KV_API_TOKEN nor KV_READ_TOKEN is set: everybody may read, write and delete", "set KV_API_TOKEN to the output of: openssl rand -hex 32")
	case api == "":
		return warn("KV_READ_TOKEN is set without KV_API_TOKEN: nobody may write", "set KV_API_TOKEN too, if anybody is to write")
	}
	return ok("%d for everything, %d for reading alone", len(tokens(api)), len(tokens(read)))
}

// tokens are those of a variable, as the functions take it apart.
func tokens(value string) (list config.Tokens) {
	_ = list.UnmarshalText([]byte(value)) // never fails
	return list
}

func checkTokenVariable(name, value string, named bool) []Finding {
	list := tokens(value)
	switch {
	case isHidden(value):
		return skip("%s is hidden in the file", name)
	case named && value == "":
		return fail(name+" is set and empty: it protects nothing", "set it to the output of: openssl rand -hex 32, or remove it")
	case value != "" && len(list) == 0:
		return fail(name+" is set and holds no token: what it protects is closed to everybody", "set it to the output of: openssl rand -hex 32")
	}
	for _, token := range list {
		if wrong := spoilt(token); wrong != "" {
			return fail(name+" "+wrong, "paste it again without ("+inNetlify+")")
		}
		if len(token) < shortToken {
			return warn(fmt.Sprintf("a token of %s has %d characters: it can be guessed", name, len(token)), "set it to the output of: openssl rand -hex 32")
		}
	}
	return nil
}

// The addresses that people take for the project's.
const rightURL = "set it to https://<project>.supabase.co (Supabase: Integrations, Data API)"

func checkSupabaseURL(_ context.Context, in *Input) []Finding {
	value := in.text("SUPABASE_URL")
	u, err := url.Parse(value)
	project, understood := kv.ProjectAddress(value)
	switch wrong := spoilt(value); {
	case in.knowsNothing():
		return unknown
	case value == "" && in.usesSupabase():
		return fail("SUPABASE_URL is not set, and "+in.answering(), rightURL)
	case value == "":
		return skip("SUPABASE_URL is not set; %s", in.answering())
	case isHidden(value):
		return skip("SUPABASE_URL is hidden in the file: set it there by hand")
	case wrong != "":
		return fail("SUPABASE_URL "+wrong, rightURL)
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return fail("SUPABASE_URL is not an address that begins with https://", rightURL)
	case u.User != nil:
		return fail("SUPABASE_URL holds a user name or a password", rightURL)
	case u.Host == "supabase.com" || strings.HasSuffix(u.Host, ".supabase.com"):
		return fail("SUPABASE_URL is an address of the dashboard, not of the project", rightURL)
	case !understood:
		return fail("SUPABASE_URL is not a project's address alone: "+u.Path+" is too much", rightURL)
	case u.Scheme == "http" && strings.HasSuffix(u.Host, ".supabase.co"):
		return fail("SUPABASE_URL begins with http://: the key would travel in the clear", rightURL)
	}
	return ok("%s", project)
}

const rightKey = "set it to the project's secret key (sb_secret_…) or service_role key (Supabase: Settings, API Keys)"

func checkSupabaseKey(_ context.Context, in *Input) []Finding {
	key := in.text("SUPABASE_SERVICE_ROLE_KEY")
	switch wrong := spoilt(key); {
	case in.knowsNothing():
		return unknown
	case key == "" && in.usesSupabase():
		return fail("SUPABASE_SERVICE_ROLE_KEY is not set, and "+in.answering(), rightKey)
	case key == "":
		return skip("SUPABASE_SERVICE_ROLE_KEY is not set; %s", in.answering())
	case isHidden(key):
		return skip("SUPABASE_SERVICE_ROLE_KEY is hidden in the file: set it there by hand")
	case wrong != "":
		return fail("SUPABASE_SERVICE_ROLE_KEY "+wrong, rightKey)
	case strings.HasPrefix(key, "sb_secret_"):
		return ok("a secret key")
	case strings.HasPrefix(key, "sb_publishable_"):
		return fail("SUPABASE_SERVICE_ROLE_KEY is the publishable key, which opens nothing here", rightKey)
	case strings.HasPrefix(key, "sbp_"):
		return fail("SUPABASE_SERVICE_ROLE_KEY is a personal access token of the Supabase CLI", rightKey)
	}
	return checkJWT(in, key)
}

// checkJWT looks into a key of the older kind. Nobody but the project can tell whether it is signed by it.
func checkJWT(in *Input, key string) []Finding {
	var claims struct {
		jwt.RegisteredClaims
		Role string `json:"role"`
		Ref  string `json:"ref"` // the project
	}
	if _, _, err := jwt.NewParser().ParseUnverified(key, &claims); err != nil {
		return fail("SUPABASE_SERVICE_ROLE_KEY is neither a secret key nor a JWT: a part may be missing", rightKey)
	}
	project, hosted := projectOf(in.text("SUPABASE_URL"))
	switch {
	case claims.Role != serviceRole:
		return fail(fmt.Sprintf("SUPABASE_SERVICE_ROLE_KEY is the key of the role %q, which opens nothing here", claims.Role), rightKey)
	case hosted && claims.Ref != "" && claims.Ref != project:
		return fail(fmt.Sprintf("SUPABASE_SERVICE_ROLE_KEY is of the project %s, and SUPABASE_URL of %s", claims.Ref, project), "set both to those of one project (Supabase: Settings, API Keys)")
	case claims.ExpiresAt != nil && claims.ExpiresAt.Before(in.Now()):
		return fail("SUPABASE_SERVICE_ROLE_KEY expired on "+claims.ExpiresAt.Format(time.DateOnly), rightKey)
	}
	return ok("a service_role key")
}

// projectOf is <project> of https://<project>.supabase.co.
func projectOf(address string) (project string, hosted bool) {
	u, err := url.Parse(strings.TrimSpace(address))
	if err != nil {
		return "", false
	}
	return strings.CutSuffix(u.Hostname(), ".supabase.co")
}
