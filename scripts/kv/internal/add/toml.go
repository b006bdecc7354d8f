package add

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"netlify-supabase-kv/scripts/kv/internal/redirects"
)

// mark is in each line that begins, ends or is an insertion into a file of the site.
const mark = "kv add:"

// marked puts an inserted text between two marked lines.
func marked(text string) string {
	return "# " + mark + " begin (kv remove takes this back)\n" + text + "# " + mark + " end\n"
}

// insertion is a text to insert into a file of the site. Its lines end with "\n".
type insertion struct {
	at   int
	text string
}

// into returns the content with the text inserted, with the content's own line ends.
func (i insertion) into(content string) string {
	text := i.text
	if strings.Contains(content, "\r\n") {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	return content[:i.at] + text + content[i.at:]
}

// atEnd inserts a text at the end, after an empty line.
func atEnd(content, text string) insertion {
	switch {
	case content == "":
	case strings.HasSuffix(content, "\n"):
		text = "\n" + text
	default:
		text = "\n\n" + text
	}
	return insertion{len(content), text}
}

func parseTOML(content []byte) (map[string]any, error) {
	config := map[string]any{}
	return config, toml.Unmarshal(content, &config)
}

// lookup finds the value at a path of names. Netlify also accepts names with a capital letter, such as Build
// (@netlify/config, case).
func lookup(config map[string]any, names ...string) any {
	var at any = config
	for _, name := range names {
		table, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		if at, ok = table[name]; !ok {
			at = table[strings.ToUpper(name[:1])+name[1:]]
		}
	}
	return at
}

func lookupString(config map[string]any, names ...string) string {
	text, _ := lookup(config, names...).(string)
	return text
}

// header finds the first line that opens a table, or an item of an array of tables, of that name. It returns where the
// line begins and ends; -1 if there is none.
func header(content string, kind unstable.Kind, name ...string) (begin, end int) {
	var p unstable.Parser
	p.Reset([]byte(content))
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != kind {
			continue
		}
		var key []string
		offset := -1
		for it := e.Key(); it.Next(); {
			if offset < 0 {
				offset = int(it.Node().Raw.Offset)
			}
			key = append(key, string(it.Node().Data))
		}
		if slices.Equal(key, name) {
			end := strings.IndexByte(content[offset:], '\n')
			if end < 0 {
				end = len(content) - offset - 1
			}
			return strings.LastIndexByte(content[:offset], '\n') + 1, offset + end + 1
		}
	}
	return -1, -1
}

// errOtherForm is the error for a netlify.toml that an insertion would break or change in meaning.
var errOtherForm = errors.New("has a form that kv add cannot add to")

// insertGoVersion adds the Go version to the build's environment.
func insertGoVersion(content, version string) (insertion, error) {
	if config, err := parseTOML([]byte(content)); err != nil {
		return insertion{}, err
	} else if config["Build"] != nil || lookup(config, "build", "Environment") != nil {
		return insertion{}, errOtherForm // Netlify ignores Build where build exists too
	}
	line := fmt.Sprintf("GO_VERSION = %q", version)
	i := atEnd(content, marked("[build.environment]\n  "+line+"\n"))
	if _, end := header(content, unstable.Table, "build", "environment"); end >= 0 {
		i = insertion{end, "  " + line + " # " + mark + " (kv remove takes this back)\n"}
		if content[end-1] != '\n' {
			i.text = "\n" + strings.TrimSuffix(i.text, "\n")
		}
	}
	return i, verify(content, i, func(before, after map[string]any) {
		environment, _ := lookup(after, "build", "environment").(map[string]any)
		if environment["GO_VERSION"] != version {
			return
		}
		delete(environment, "GO_VERSION")
		if lookup(before, "build", "environment") == nil {
			delete(lookup(after, "build").(map[string]any), "environment")
		}
		if before["build"] == nil {
			delete(after, "build")
		}
	})
}

// insertRules puts the rules in front of the site's first rule.
func insertRules(content string, rules []redirects.Rule) (insertion, error) {
	block := marked(tomlBlock(rules))
	i := atEnd(content, block)
	if begin, _ := header(content, unstable.ArrayTable, "redirects"); begin >= 0 {
		i = insertion{aboveComments(content, begin), block + "\n"}
	}
	return i, verify(content, i, func(before, after map[string]any) {
		list, _ := after["redirects"].([]any)
		if len(list) < len(rules) {
			return
		}
		if after["redirects"] = list[len(rules):]; before["redirects"] == nil && len(list) == len(rules) {
			delete(after, "redirects")
		}
	})
}

// aboveComments returns the start of the comment lines directly above the line at begin.
func aboveComments(content string, begin int) int {
	for begin > 0 {
		up := strings.LastIndexByte(content[:begin-1], '\n') + 1
		if !strings.HasPrefix(strings.TrimSpace(content[up:begin]), "#") {
			break
		}
		begin = up
	}
	return begin
}

// verify parses the content with and without the insertion. After strip removes what was inserted, both must be equal.
func verify(content string, i insertion, strip func(before, after map[string]any)) error {
	before, err := parseTOML([]byte(content))
	if err != nil {
		return err
	}
	after, err := parseTOML([]byte(i.into(content)))
	if err != nil {
		return errOtherForm
	}
	strip(before, after)
	if !reflect.DeepEqual(before, after) {
		return errOtherForm
	}
	return nil
}
