package config

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// update writes what the tests would compare: make generate.
var update = flag.Bool("update", false, "write the tables of variables in the documentation and .env.example")

// groups are the structs that the documentation lists, by name.
var groups = map[string]any{"Functions": Functions{}, "Platform": Platform{}, "Programs": Programs{}}

const root = "../.."

// documented is a variable with what the documentation says of it.
type documented struct{ name, value, shown, meaning string }

// document lists the variables of a group. Their meaning is the fields' comments in config.go.
func document(t *testing.T, group string) (list []documented) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "config.go", nil, parser.ParseComments)
	require.NoError(t, err)
	meanings := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		if field, ok := n.(*ast.Field); ok && field.Tag != nil {
			tag := reflect.StructTag(strings.Trim(field.Tag.Value, "`"))
			meanings[tag.Get("env")] = strings.Join(strings.Fields(field.Doc.Text()), " ")
		}
		return true
	})
	value, known := groups[group]
	require.True(t, known, "there is no group %s", group)
	for _, v := range variables(addressable(value)) {
		require.Regexp(t, `^.+\.$`, meanings[v.name], "config.go: %s needs a comment, which the documentation shows", v.name)
		list = append(list, documented{v.name, v.tag.Get("default"), v.tag.Get("shown"), meanings[v.name]})
	}
	return list
}

var page = regexp.MustCompile(`docs/([A-Z-]+\.md)(#[a-z-]+)?`)

// table is what README.md shows of some groups.
func table(t *testing.T, names []string) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("| variable | default | meaning |\n|---|---|---|\n")
	for _, name := range names {
		for _, v := range document(t, name) {
			shown := v.shown
			if v.value != "" {
				shown = "`" + v.value + "`"
			}
			meaning := page.ReplaceAllString(strings.TrimSuffix(v.meaning, "."), "[docs/$1](docs/$1$2)")
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", v.name, shown, meaning)
		}
	}
	return b.String()
}

// example is what .env.example has of some groups.
func example(t *testing.T, names []string) string {
	t.Helper()
	var b strings.Builder
	for _, name := range names {
		for _, v := range document(t, name) {
			meaning := v.meaning
			if v.shown != "" {
				meaning += " Default: " + v.shown + "."
			}
			b.WriteString(wrap(page.ReplaceAllString(strings.ReplaceAll(meaning, "`", ""), "docs/$1")))
			fmt.Fprintf(&b, "%s=%s\n", v.name, v.value)
		}
	}
	return b.String()
}

// wrap breaks a comment of the shell into lines.
func wrap(text string) string {
	line, lines := "#", ""
	for word := range strings.FieldsSeq(text) {
		if len(line)+len(word) > 118 {
			line, lines = "#", lines+line+"\n"
		}
		line += " " + word
	}
	return lines + line + "\n"
}

// generated matches what stands between two marks, of which the first names groups.
var generated = regexp.MustCompile(`(?s)((?:<!--|#) variables: ([A-Za-z, ]+?)(?: -->)?\n)(.*?)((?:<!--|#) end of variables)`)

// TestTheDocumentationListsTheVariables holds the documentation to config.go. Run with -update, it writes what is
// missing.
func TestTheDocumentationListsTheVariables(t *testing.T) {
	listed := map[string]bool{}
	for _, name := range []string{"README.md", ".env.example"} {
		file := filepath.Join(root, name)
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		want := generated.ReplaceAllStringFunc(string(content), func(block string) string {
			parts := generated.FindStringSubmatch(block)
			names := strings.Split(parts[2], ", ")
			for _, group := range names {
				listed[name+" "+group] = true
			}
			if strings.HasPrefix(block, "#") {
				return parts[1] + example(t, names) + parts[4]
			}
			return parts[1] + table(t, names) + parts[4]
		})
		if *update && want != string(content) {
			require.NoError(t, os.WriteFile(file, []byte(want), 0o644))
			continue
		}
		require.Equal(t, want, string(content), "%s is not what pkg/config/config.go makes of it: make generate", name)
	}
	for _, name := range []string{".env.example Functions", ".env.example Platform", ".env.example Programs", "README.md Functions"} {
		require.True(t, listed[name], "the marks of %s", name)
	}
}

// ours are names of variables as they stand alone in the source. KV_TEST_ is what tests tell programs that they start.
var ours = regexp.MustCompile(`"((?:KV|USE|NETLIFY|SUPABASE|DATABASE|E2E|PREVIEW|CACHE_TEST|MIGRATE_TEST|MIRROR_TEST)_[A-Z0-9_]*[A-Z0-9])"`)

// internal are names that nobody sets by hand: those of netlify dev, of the makefile and the workflows, of tests and
// what they start.
var internal = []string{"NETLIFY_DEV", "E2E_ONLY", "NETLIFY_SITE_NAME", "KV_MIGRATE_CRASH_CHILD", "KV_MIGRATE_PROGRAM", "KV_X", "USE_X", "KV_EMPTY"}

// TestEveryVariableIsInTheExample finds variables that the source names and .env.example does not.
func TestEveryVariableIsInTheExample(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile(root + "/.env.example")
	require.NoError(t, err)
	known := regexp.MustCompile(`[A-Z][A-Z0-9_]+`).FindAllString(string(content), -1)
	for _, dir := range []string{"functions", "pkg", "scripts", "tests"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(file string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(file) != ".go" {
				return err
			}
			source, err := os.ReadFile(file)
			for _, m := range ours.FindAllStringSubmatch(string(source), -1) {
				if !strings.HasPrefix(m[1], "KV_TEST_") && !slices.Contains(internal, m[1]) {
					assert.True(t, slices.Contains(known, m[1]), "%s: .env.example does not have %s", file, m[1])
				}
			}
			return err
		})
		require.NoError(t, err)
	}
}

// TestOnlyThisPackageReadsVariables of the functions, so that none is missing here. NETLIFY_DEV is netlify dev's own.
func TestOnlyThisPackageReadsVariables(t *testing.T) {
	t.Parallel()
	named := regexp.MustCompile(`os\.(?:Getenv|LookupEnv)\([^)]*\)`)
	for _, dir := range []string{"functions", "pkg"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(file string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(file) != ".go" || strings.HasSuffix(file, "_test.go") || strings.HasSuffix(filepath.Dir(file), "test") {
				return err
			}
			source, err := os.ReadFile(file)
			for _, read := range named.FindAllString(string(source), -1) {
				require.Equal(t, `os.Getenv("NETLIFY_DEV")`, read, "%s: read it in pkg/config", file)
			}
			return err
		})
		require.NoError(t, err)
	}
}
