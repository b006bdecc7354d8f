package report

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// WriteJSON writes the results of a run as a file, and makes its folder; "" is no file.
func WriteJSON(file string, results any) error {
	if file == "" {
		return nil
	}
	text, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}
