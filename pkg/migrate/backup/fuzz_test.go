package backup

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzReadBackup: whatever is read as a backup keeps its promises, as a plain reading of its lines finds them: the sums of the
// values, no key twice, and what the manifest says. zipped reports whether the input is the file, or what is in it.
func FuzzReadBackup(f *testing.F) {
	zipped, text := small(f)
	f.Add(zipped, true)
	f.Add([]byte(text), false)
	f.Add(zipped[:len(zipped)/2], true)
	f.Add(append(bytes.Clone(zipped), zipped...), true)
	f.Add([]byte(strings.ReplaceAll(text, "é", "è")), false)
	f.Add([]byte("{\"manifest\":{}}\n"), false)
	f.Add([]byte{}, true)
	f.Fuzz(func(t *testing.T, input []byte, isZipped bool) {
		if !isZipped {
			input = zip(string(input))
		}
		const limit = 1 << 16
		values := map[string]string{}
		r, err := read(t.Context(), bytes.NewReader(input), limit, func(l *entryLine) error {
			require.Equal(t, hexSHA256(l.value), l.SHA256)
			require.Equal(t, int64(len(l.value)), l.Size)
			require.NotContains(t, values, l.Key)
			values[l.Key] = string(l.value)
			return nil
		})
		if err != nil {
			return
		}
		require.Equal(t, len(values), r.manifest.Entries)
		unzipped, err := gzip.NewReader(bytes.NewReader(input))
		require.NoError(t, err)
		requireManifest(t, unzipped, values, r.manifest)
	})
}

// requireManifest reads the lines anew.
func requireManifest(t *testing.T, unzipped io.Reader, values map[string]string, m *manifest) {
	t.Helper()
	sum, bytes := sha256.New(), 0
	lines := bufio.NewReader(unzipped)
	for n := 0; ; n++ {
		line, err := lines.ReadString('\n')
		require.NoError(t, err, "each line ends in a line feed, and the manifest is the last one")
		var entry struct{ Key string }
		require.NoError(t, json.Unmarshal([]byte(line), &entry))
		if strings.HasPrefix(line, manifestStart) {
			require.Equal(t, len(values)+1, n)
			break
		}
		if n > 0 {
			require.Contains(t, values, entry.Key)
			bytes += len(values[entry.Key])
		}
		sum.Write([]byte(line))
	}
	_, err := lines.ReadByte()
	require.Equal(t, io.EOF, err)
	require.Equal(t, int64(bytes), m.Bytes)
	require.Equal(t, hex.EncodeToString(sum.Sum(nil)), m.SHA256)
}
