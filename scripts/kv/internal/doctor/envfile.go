package doctor

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
)

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// ReadVariables reads a file of variables: a JSON object of strings, as `netlify env:list --json` prints it, or
// KEY=value lines, as in .env files and `netlify env:list --plain`. Quotes around a value are removed, as a shell
// does. No error quotes a value.
func ReadVariables(file string) (map[string]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	variables := map[string]string{}
	if strings.HasPrefix(strings.TrimSpace(string(text)), "{") {
		if json.Unmarshal(text, &variables) != nil {
			return nil, fmt.Errorf("%s is not a JSON object of strings", file)
		}
		return variables, nil
	}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.TrimPrefix(strings.TrimSpace(line), "export ")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, found := strings.Cut(line, "=")
		if !found || !variableName.MatchString(name) {
			return nil, fmt.Errorf("%s, line %d, is not KEY=value", file, number)
		}
		variables[name] = unquote(value)
	}
	return variables, nil
}

// unquote removes the quotes around a value.
func unquote(value string) string {
	for _, quote := range []string{"'", `"`} {
		if len(value) >= 2 && strings.HasPrefix(value, quote) && strings.HasSuffix(value, quote) {
			return strings.ReplaceAll(value[1:len(value)-1], `'\''`, "'")
		}
	}
	return value
}
