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

// Variables are those that the functions read. `kv doctor --env-file` sets those in the file and unsets the others.
var Variables = config.Names(config.Functions{})

// knowsNothing reports whether no settings are known: no file was given, and the environment has none of them.
func (in *Input) knowsNothing() bool {
	return in.Names == nil && !slices.ContainsFunc(Variables, func(name string) bool { return in.Getenv(name) != "" })
}

// unknown is the finding for that case.
var unknown = skip("not checked: none of the functions' variables is set here; --env-file reads those of the site")

// inNetlify tells where to set the variables.
const inNetlify = "Netlify: Project configuration, Environment variables; then deploy again"

// isHidden reports whether Netlify masked the value because it is marked as secret.
func isHidden(value string) bool { return strings.HasPrefix(value, "****") }

// text returns a variable's value as the functions read it, without quotes and spaces around it.
func (in *Input) text(name string) string { return config.Clean(in.Getenv(name)) }

// malformed describes a stray character in a value as the functions read it; "" if there is none.
func malformed(value string) string {
	switch {
	case value != "" && strings.ContainsAny(value[:1]+value[len(value)-1:], `"'`+"`"):
		return "has a quotation mark at one end, which counts as part of the value"
	case strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "contains a space, a line break or another character that does not belong there"
	}
	return ""
}

func checkVariables(_ context.Context, in *Input) (findings []Finding) {
	if in.knowsNothing() {
		return unknown
	}
	for _, problem := range in.Problems() {
		if !strings.HasPrefix(problem.Error(), "SUPABASE_") { // separate checks report those
			findings = append(findings, Finding{Fail, problem.Error(), "correct it (" + inNetlify + "): until then the functions answer 503"})
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
	return ok("%d of the functions' %d variables are set; %s; %s", set, len(Variables), in.answering(), in.apart())
}

// apart describes whose entries the functions read and write.
func (in *Input) apart() string {
	switch namespace := in.stores().Namespace; {
	case namespace != "":
		return "its entries are those of the namespace " + namespace + " alone"
	case in.supabaseFirst():
		return "deploy previews with these variables share its entries: KV_NAMESPACE keeps theirs apart (docs/PREVIEW.md)"
	}
	return "deploy previews share its entries"
}

// answering describes the stores that the variables select.
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
	_ = config.Read(&s, in.Getenv) // checkVariables reports invalid values
	return s
}

func (in *Input) supabaseFirst() bool { return in.stores().UseSupabase }
func (in *Input) mirrors() bool       { return in.stores().MirrorWrites }
func (in *Input) compares() bool      { return in.stores().CompareReads > 0 }

func (in *Input) usesSupabase() bool { return in.supabaseFirst() || in.mirrors() || in.compares() }
func (in *Input) usesBlobs() bool    { return !in.supabaseFirst() || in.mirrors() || in.compares() }

// Limits for the size of all names and values together.
const (
	maxVariableBytes  = 4096 // AWS Lambda's limit, which applies to Netlify's Go functions
	muchVariableBytes = 3584 // leaves room for the variables that Netlify adds
)

func checkVariablesSize(_ context.Context, in *Input) []Finding {
	if in.knowsNothing() {
		return unknown
	}
	names, of := in.Names, "all of the site's"
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
	text := fmt.Sprintf("%d bytes in %d variables, %s; the limit is %d, which includes Netlify's own", total, len(each), of, maxVariableBytes)
	switch {
	case total > maxVariableBytes:
		return fail(text+": the deploy fails", "remove from the scope Functions what they do not need; the largest are "+strings.Join(largest, ", "))
	case total > muchVariableBytes:
		return warn(text, "remove from the scope Functions what they do not need; the largest are "+strings.Join(largest, ", "))
	case in.Names == nil:
		return ok("%s; --env-file counts all variables of a site", text)
	}
	return ok("%s", text)
}

// minTokenLength is the length from which guessing a token takes too long.
const minTokenLength = 16

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
		return warn("neither KV_API_TOKEN nor KV_READ_TOKEN is set: everyone can read, write and delete", "set KV_API_TOKEN to the output of: openssl rand -hex 32")
	case api == "":
		return warn("KV_READ_TOKEN is set without KV_API_TOKEN: nobody can write", "set KV_API_TOKEN too if somebody should write")
	}
	return ok("%d for everything, %d only for reading", len(tokens(api)), len(tokens(read)))
}

// tokens splits a variable into tokens as the functions do.
func tokens(value string) (list config.Tokens) {
	_ = list.UnmarshalText([]byte(value)) // never fails
	return list
}

func checkTokenVariable(name, value string, named bool) []Finding {
	list := tokens(value)
	switch {
	case isHidden(value):
		return skip("not checked: %s is hidden in the file", name)
	case named && value == "":
		return fail(name+" is set but empty: it protects nothing", "set it to the output of: openssl rand -hex 32, or remove it")
	case value != "" && len(list) == 0:
		return fail(name+" is set but holds no token: nobody can do what it protects", "set it to the output of: openssl rand -hex 32")
	}
	for _, token := range list {
		if wrong := malformed(token); wrong != "" {
			return fail(name+" "+wrong, "enter it again without that ("+inNetlify+")")
		}
		if len(token) < minTokenLength {
			return warn(fmt.Sprintf("a token of %s has %d characters: it can be guessed", name, len(token)), "set it to the output of: openssl rand -hex 32")
		}
	}
	return nil
}

// rightURL is what to do about a wrong SUPABASE_URL.
const rightURL = "set it to https://<project>.supabase.co (Supabase: Integrations, Data API)"

func checkSupabaseURL(_ context.Context, in *Input) []Finding {
	value := in.text("SUPABASE_URL")
	u, err := url.Parse(value)
	project, valid := kv.ProjectAddress(value)
	switch wrong := malformed(value); {
	case in.knowsNothing():
		return unknown
	case value == "" && in.usesSupabase():
		return fail("SUPABASE_URL is not set, and "+in.answering(), rightURL)
	case value == "":
		return skip("SUPABASE_URL is not set; %s", in.answering())
	case isHidden(value):
		return skip("not checked: SUPABASE_URL is hidden in the file; set it there by hand")
	case wrong != "":
		return fail("SUPABASE_URL "+wrong, rightURL)
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return fail("SUPABASE_URL is not an address that begins with https://", rightURL)
	case u.User != nil:
		return fail("SUPABASE_URL holds a user name or a password", rightURL)
	case u.Host == "supabase.com" || strings.HasSuffix(u.Host, ".supabase.com"):
		return fail("SUPABASE_URL is an address of the dashboard, not of the project", rightURL)
	case !valid:
		return fail("SUPABASE_URL has more than a project's address: remove "+u.Path, rightURL)
	case u.Scheme == "http" && strings.HasSuffix(u.Host, ".supabase.co"):
		return fail("SUPABASE_URL begins with http://: the key would be sent unencrypted", rightURL)
	}
	return ok("%s", project)
}

const rightKey = "set it to the project's secret key (sb_secret_…) or service_role key (Supabase: Settings, API Keys)"

func checkSupabaseKey(_ context.Context, in *Input) []Finding {
	key := in.text("SUPABASE_SERVICE_ROLE_KEY")
	switch wrong := malformed(key); {
	case in.knowsNothing():
		return unknown
	case key == "" && in.usesSupabase():
		return fail("SUPABASE_SERVICE_ROLE_KEY is not set, and "+in.answering(), rightKey)
	case key == "":
		return skip("SUPABASE_SERVICE_ROLE_KEY is not set; %s", in.answering())
	case isHidden(key):
		return skip("not checked: SUPABASE_SERVICE_ROLE_KEY is hidden in the file; set it there by hand")
	case wrong != "":
		return fail("SUPABASE_SERVICE_ROLE_KEY "+wrong, rightKey)
	case strings.HasPrefix(key, "sb_secret_"):
		return ok("a secret key")
	case strings.HasPrefix(key, "sb_publishable_"):
		return fail("SUPABASE_SERVICE_ROLE_KEY is the publishable key, which has no access to the entries", rightKey)
	case strings.HasPrefix(key, "sbp_"):
		return fail("SUPABASE_SERVICE_ROLE_KEY is a personal access token of the Supabase CLI", rightKey)
	}
	return checkJWT(in, key)
}

// checkJWT checks a key of the older kind. It cannot check the signature: only the project can.
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
		return fail(fmt.Sprintf("SUPABASE_SERVICE_ROLE_KEY has the role %q, which has no access to the entries", claims.Role), rightKey)
	case hosted && claims.Ref != "" && claims.Ref != project:
		return fail(fmt.Sprintf("SUPABASE_SERVICE_ROLE_KEY belongs to the project %s, and SUPABASE_URL to %s", claims.Ref, project), "set both to the same project (Supabase: Settings, API Keys)")
	case claims.ExpiresAt != nil && claims.ExpiresAt.Before(in.Now()):
		return fail("SUPABASE_SERVICE_ROLE_KEY expired on "+claims.ExpiresAt.Format(time.DateOnly), rightKey)
	}
	return ok("a service_role key")
}

// projectOf returns <project> of https://<project>.supabase.co.
func projectOf(address string) (project string, hosted bool) {
	u, err := url.Parse(strings.TrimSpace(address))
	if err != nil {
		return "", false
	}
	return strings.CutSuffix(u.Hostname(), ".supabase.co")
}
