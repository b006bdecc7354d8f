package doctor

import (
	"crypto/md5" // #nosec G501 -- Postgres' md5() is what kv_health compares by; nothing secret depends on it
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// schema is what the migrations create in an empty database. It is parsed from their text, so that nothing has to be
// kept in step with them. A test compares it with what Postgres creates from the same text.
type schema struct {
	revision string              // version of the newest file
	files    []string            // in the order they are applied
	objects  map[string]object   // by "function public.kv_get", "table …", "column …", "trigger …", "index …"
	older    map[string][]string // files with an earlier definition of a function, by "<function> <digest>"
	granted  map[string]bool     // "service_role execute public.kv_get"
	defaults map[string]string   // default privileges of service_role, such as "all", by "<schema> <kind of object>"
}

// object is one object that the database must have.
type object struct {
	file   string // the file with its current definition
	digest string // md5 of a function's source
}

const identifier = `(?:public|kv)\.\w+`

var statements = regexp.MustCompile(`(?m)^(?:create|drop|alter|grant)\b`)

var (
	createFunction = regexp.MustCompile(`(?s)^create (?:or replace )?(?:function|procedure) (` + identifier + `)\s*\(.*?\bas (\$\w*\$)`)
	createTable    = regexp.MustCompile(`(?s)^create (?:unlogged )?table (?:if not exists )?(` + identifier + `) \((.*?)\n\)`)
	createTrigger  = regexp.MustCompile(`(?s)^create (?:or replace )?(?:constraint )?trigger (\w+)\s[^;]*?\son (` + identifier + `)`)
	createIndex    = regexp.MustCompile(`^create (?:unique )?index (?:if not exists )?(\w+)\s+on (public|kv)\.`)
	alterColumn    = regexp.MustCompile(`^alter table (` + identifier + `) (add|drop) column (?:if (?:not )?exists )?(\w+)`)
	dropTrigger    = regexp.MustCompile(`^drop trigger (?:if exists )?(\w+) on (` + identifier + `)`)
	dropObject     = regexp.MustCompile(`(?s)^drop (function|table|index) (?:if exists )?([^;]*);`)
	grantToRole    = regexp.MustCompile(`(?s)^grant ([a-z, ]+) on (?:(table|function|sequence|schema) )?([^;]*?)\s+to\s+([\w, ]+);`)
	grantByDefault = regexp.MustCompile(`^alter default privileges in schema (\w+) grant ([a-z, ]+) on (tables|sequences|functions) to ([\w, ]+);`)
	createSequence = regexp.MustCompile(`^create sequence (` + identifier + `)`)
	columnName     = regexp.MustCompile(`(?m)^    (\w+) `)
	functionName   = regexp.MustCompile(`(` + identifier + `)\s*\(`)
	objectName     = regexp.MustCompile(identifier)
	version        = regexp.MustCompile(`^\d{14}`)
)

// readSchema reads the migrations of a folder.
func readSchema(migrations fs.FS, dir string) (*schema, error) {
	files, err := fs.Glob(migrations, path.Join(dir, "*.sql")) // in the order of their names
	if err != nil {
		return nil, err
	}
	s := &schema{objects: map[string]object{}, older: map[string][]string{}, granted: map[string]bool{}, defaults: map[string]string{}}
	for _, name := range files {
		text, err := fs.ReadFile(migrations, name)
		if err != nil {
			return nil, err
		}
		s.read(path.Base(name), strings.ReplaceAll(string(text), "\r", ""))
	}
	if len(s.files) == 0 {
		return nil, fmt.Errorf("no migrations in %s", dir)
	}
	s.revision = version.FindString(s.files[len(s.files)-1])
	return s, nil
}

// read applies one file. Each statement that creates or removes something begins a line.
func (s *schema) read(file, text string) {
	s.files = append(s.files, file)
	for at := 0; ; {
		found := statements.FindStringIndex(text[at:])
		if found == nil {
			return
		}
		at += found[0]
		at += max(s.statement(file, text[at:]), 1)
	}
}

// statement applies the statement at the start of text. For a function it returns where the body ends, so that no line
// of the body counts as a statement; for all others 0.
func (s *schema) statement(file, text string) (end int) {
	if m := createFunction.FindStringSubmatchIndex(text); m != nil {
		name, quote := "function "+text[m[2]:m[3]], text[m[4]:m[5]]
		source, _, _ := strings.Cut(text[m[1]:], quote)
		if before, ok := s.objects[name]; ok {
			s.older[name+" "+before.digest] = append(s.older[name+" "+before.digest], before.file)
		}
		s.objects[name] = object{file, digest(source)}
		s.grantDefaults("function", text[m[2]:m[3]])
		return m[1] + len(source) + len(quote)
	}
	if m := createTable.FindStringSubmatch(text); m != nil {
		s.objects["table "+m[1]] = object{file: file}
		s.grantDefaults("table", m[1])
		for _, column := range columnName.FindAllStringSubmatch(m[2], -1) {
			if !slices.Contains([]string{"constraint", "primary", "unique", "check", "foreign", "exclude", "like"}, column[1]) {
				s.objects["column "+m[1]+"."+column[1]] = object{file: file}
			}
		}
	} else if m := createTrigger.FindStringSubmatch(text); m != nil {
		s.objects["trigger "+m[2]+"."+m[1]] = object{file: file}
	} else if m := createIndex.FindStringSubmatch(text); m != nil {
		s.objects["index "+m[2]+"."+m[1]] = object{file: file}
	} else if m := alterColumn.FindStringSubmatch(text); m != nil && m[2] == "add" {
		s.objects["column "+m[1]+"."+m[3]] = object{file: file}
	} else if m != nil {
		delete(s.objects, "column "+m[1]+"."+m[3])
	} else if m := dropTrigger.FindStringSubmatch(text); m != nil {
		delete(s.objects, "trigger "+m[2]+"."+m[1])
	} else if m := dropObject.FindStringSubmatch(text); m != nil {
		s.drop(m[1], m[2])
	} else if m := createSequence.FindStringSubmatch(text); m != nil {
		s.grantDefaults("sequence", m[1])
	} else if m := grantByDefault.FindStringSubmatch(text); m != nil && strings.Contains(m[4], serviceRole) {
		s.defaults[m[1]+" "+strings.TrimSuffix(m[3], "s")] = m[2]
	} else if m := grantToRole.FindStringSubmatch(text); m != nil && strings.Contains(m[4], serviceRole) {
		s.grant(m[1], m[2], m[3])
	}
	return 0
}

func digest(source string) string {
	sum := md5.Sum([]byte(source)) // #nosec G401 -- see the import
	return hex.EncodeToString(sum[:])
}

func (s *schema) drop(kind, names string) {
	pattern := objectName
	if kind == "function" {
		pattern = functionName
	}
	for _, m := range pattern.FindAllString(names, -1) {
		name := strings.TrimRight(m, "( \n")
		delete(s.objects, kind+" "+name)
		for other := range s.objects {
			if kind == "table" && (strings.HasPrefix(other, "column "+name+".") || strings.HasPrefix(other, "trigger "+name+".")) {
				delete(s.objects, other)
			}
		}
		for line := range s.granted {
			if strings.HasSuffix(line, " "+name) {
				delete(s.granted, line)
			}
		}
	}
}

// all lists the privileges in "grant all" that the functions need.
var all = map[string][]string{
	"": {"select", "insert", "update", "delete"}, "table": {"select", "insert", "update", "delete"}, "sequence": {"usage"}, "function": {"execute"},
}

func (s *schema) grant(privileges, kind, names string) {
	list := strings.Split(privileges, ",")
	if strings.HasPrefix(privileges, "all") {
		list = all[kind]
	}
	pattern := objectName
	if kind == "function" {
		pattern = functionName
	}
	for _, m := range pattern.FindAllString(names, -1) {
		for _, privilege := range list {
			s.granted[serviceRole+" "+strings.TrimSpace(privilege)+" "+strings.TrimRight(m, "( \n")] = true
		}
	}
}

// grantDefaults grants the default privileges of the schema on a new object.
func (s *schema) grantDefaults(kind, name string) {
	schema, _, _ := strings.Cut(name, ".")
	privileges, ok := s.defaults[schema+" "+kind]
	if !ok {
		return
	} else if kind == "function" {
		name += "("
	}
	s.grant(privileges, kind, name)
}

const serviceRole = "service_role"

// health is the result of kv_health.
type health struct {
	Revision  string
	Role      string
	Bypass    bool
	Now       string
	Database  string
	Functions [][2]string
	Tables    []struct {
		Name              string
		Security          bool
		Columns, Policies []string
	}
	Indexes      []string
	Triggers     [][3]string
	Access       []string
	Publications [][2]string
}

// objects returns the objects in the database with their digests, by the names that schema uses. An overloaded
// function has several digests.
func (h *health) objects() map[string][]string {
	has := map[string][]string{}
	for _, f := range h.Functions {
		has["function "+f[0]] = append(has["function "+f[0]], f[1])
	}
	for _, t := range h.Tables {
		has["table "+t.Name] = nil
		for _, column := range t.Columns {
			has["column "+t.Name+"."+column] = nil
		}
	}
	for _, index := range h.Indexes {
		has["index "+index] = nil
	}
	for _, t := range h.Triggers {
		if t[2] != "D" {
			has["trigger "+t[0]+"."+t[1]] = nil
		}
	}
	return has
}

// difference is how a database differs from the release.
type difference struct {
	missing []string // objects
	older   []string // functions as an earlier migration defined them
	other   []string // functions as no migration defined them
	extra   []string // functions that the release does not have
	files   []string // migrations that are not or only partly applied, in order
	none    bool     // the database has nothing of the schema
}

func (s *schema) compare(h *health) (d difference) {
	has := h.objects()
	d.none = true
	lacking := map[string]bool{}
	for name, wanted := range s.objects {
		digests, there := has[name]
		d.none = d.none && !there
		switch {
		case !there:
			d.missing = append(d.missing, name)
		case wanted.digest == "" || slices.Contains(digests, wanted.digest):
			continue
		case slices.ContainsFunc(digests, func(digest string) bool { return s.older[name+" "+digest] != nil }):
			d.older = append(d.older, name)
		default:
			d.other = append(d.other, name)
			continue
		}
		lacking[wanted.file] = true
	}
	for name := range has {
		if _, known := s.objects[name]; !known && strings.HasPrefix(name, "function ") {
			d.extra = append(d.extra, name)
		}
	}
	for _, list := range [][]string{d.missing, d.older, d.other, d.extra} {
		slices.Sort(list)
	}
	for _, file := range s.files {
		if lacking[file] {
			d.files = append(d.files, file)
		}
	}
	return d
}
