package preview

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

type workflow struct {
	On          any
	Permissions map[string]string
	Jobs        map[string]struct {
		If             string
		TimeoutMinutes int `yaml:"timeout-minutes"`
		Steps          []step
	}
}

type step struct {
	Name, ID, If, Uses, Run, Shell string
	With, Env                      map[string]string
}

func readWorkflow(t *testing.T, name string) (w workflow) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../.github/workflows", name))
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, &w))
	return w
}

// TestActionsArePinned: a tag can be moved to other code, a hash cannot. Jobs also need explicit permissions and a
// timeout.
func TestActionsArePinned(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../.github/workflows/*.yml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		w := readWorkflow(t, filepath.Base(file))
		require.Equal(t, "read", w.Permissions["contents"], file)
		for name, job := range w.Jobs {
			require.NotZero(t, job.TimeoutMinutes, "%s: %s", file, name)
			for _, step := range job.Steps {
				if step.Uses != "" {
					require.Regexp(t, `^[a-z-]+/[a-z-]+@[0-9a-f]{40}$`, step.Uses, file)
				}
			}
		}
	}
}

// statusEvent has the fields of GitHub's status event that the workflow reads.
type statusEvent struct {
	State       string              `json:"state"`
	Context     string              `json:"context"`
	Description string              `json:"description"`
	TargetURL   string              `json:"target_url"`
	Branches    []map[string]string `json:"branches"`
}

// conditions evaluates the `if` of this workflow as GitHub does. Comparisons ignore case, and a missing value is null,
// which equals "".
const conditions = `
const [expression, context] = JSON.parse(process.argv[1]);
const nothing = new Proxy({}, {get: (_, name) => name === Symbol.toPrimitive ? () => '' : nothing});
const seen = value => value === undefined || value === null ? nothing
	: typeof value === 'object' ? new Proxy(value, {get: (object, name) => seen(object[name])})
	: typeof value === 'string' ? value.toLowerCase() : value;
const functions = {
	startsWith: (text, start) => String(text).startsWith(start.toLowerCase()),
	format: (text, ...values) => values.reduce((text, value, i) => text.replaceAll('{' + i + '}', value), text),
};
const names = {...functions, github: seen(context.github), vars: seen(context.vars)};
process.stdout.write(String(Boolean(new Function(...Object.keys(names), 'return ' + expression)(...Object.values(names)))));
`

// TestThePreviewWorkflowRunsForWhatNetlifyPosts: for a successful preview of the pinned site, of a commit on a branch
// of this repository.
func TestThePreviewWorkflowRunsForWhatNetlifyPosts(t *testing.T) {
	t.Parallel()
	w := readWorkflow(t, "deploy-preview.yml")
	require.Equal(t, "status", w.On, "Netlify posts commit statuses and makes no deployments")
	condition := w.Jobs["e2e"].If
	branch := []map[string]string{{"name": "a-branch"}}
	ready := "Deploy Preview ready!"
	preview := "https://deploy-preview-12--my-site.netlify.app"
	for name, c := range map[string]struct {
		site  string
		event statusEvent
		runs  bool
	}{
		"Ready":           {"my-site", statusEvent{"success", "netlify/my-site/deploy-preview", ready, preview, branch}, true},
		"ReadyOldContext": {"my-site", statusEvent{"success", "deploy/netlify", ready, "https://app.netlify.com/sites/my-site/deploys/0123456789abcdef01234567", branch}, true},
		"Pending":         {"my-site", statusEvent{"pending", "netlify/my-site/deploy-preview", "Deploy Preview processing.", preview, branch}, false},
		"Failed":          {"my-site", statusEvent{"failure", "netlify/my-site/deploy-preview", "Deploy Preview failed.", preview, branch}, false},
		"Production":      {"my-site", statusEvent{"success", "deploy/netlify", "Deploy ready!", preview, branch}, false},
		"OtherSite":       {"my-site", statusEvent{"success", "netlify/other/deploy-preview", ready, "https://deploy-preview-12--other.netlify.app", branch}, false},
		"LongerName":      {"my-site", statusEvent{"success", "netlify/my-site-2/deploy-preview", ready, preview, branch}, false},
		"OtherCheck":      {"my-site", statusEvent{"success", "netlify/my-site/redirects", ready, preview, branch}, false},
		"OwnStatus":       {"my-site", statusEvent{"success", "e2e / deploy preview", preview, preview, branch}, false},
		"OfAFork":         {"my-site", statusEvent{"success", "netlify/my-site/deploy-preview", ready, preview, []map[string]string{}}, false},
		"NothingPinned":   {"", statusEvent{"success", "netlify//deploy-preview", ready, preview, branch}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			input, err := json.Marshal([]any{condition, map[string]any{
				"github": map[string]any{"event": c.event}, "vars": map[string]string{"NETLIFY_SITE_NAME": c.site},
			}})
			require.NoError(t, err)
			out, err := exec.Command("node", "-e", conditions, string(input)).CombinedOutput()
			require.NoError(t, err, "%s", out)
			require.Equal(t, map[bool]string{true: "true", false: "false"}[c.runs], string(out))
		})
	}
}

// TestTheTokenGoesOnlyToThePinnedSite runs the step of the workflow that chooses the address.
func TestTheTokenGoesOnlyToThePinnedSite(t *testing.T) {
	t.Parallel()
	job := readWorkflow(t, "deploy-preview.yml").Jobs["e2e"]
	choose := job.Steps[0]
	require.Equal(t, "bash", choose.Shell)
	require.Equal(t, map[string]string{"SITE": "${{ vars.NETLIFY_SITE_NAME }}", "TARGET_URL": "${{ github.event.target_url }}"}, choose.Env)
	for _, step := range job.Steps[1:] {
		require.Contains(t, step.If, "steps.preview.outputs.found", "%s is only for a preview that was found", step.Name+step.Uses)
		require.NotContains(t, step.Env, "KV_BASE_URL", "%s must take the address that was chosen", step.Name)
		require.NotContains(t, step.Run, "${{", "%s: what an event says goes through the environment, not into a script", step.Name)
	}
	const id = "0123456789abcdef01234567"
	for name, c := range map[string]struct{ site, target, address string }{
		"Preview":             {"my-site", "https://deploy-preview-12--my-site.netlify.app", "https://deploy-preview-12--my-site.netlify.app"},
		"PreviewWithSlash":    {"my-site", "https://deploy-preview-12--my-site.netlify.app/", "https://deploy-preview-12--my-site.netlify.app"},
		"PageOfTheDeploy":     {"my-site", "https://app.netlify.com/sites/my-site/deploys/" + id, "https://" + id + "--my-site.netlify.app"},
		"PageOfTheProject":    {"my-site", "https://app.netlify.com/projects/my-site/deploys/" + id, "https://" + id + "--my-site.netlify.app"},
		"SiteNamedProjects":   {"projects", "https://app.netlify.com/sites/projects/deploys/" + id, "https://" + id + "--projects.netlify.app"},
		"OtherSite":           {"my-site", "https://deploy-preview-12--other.netlify.app", ""},
		"OtherSitesDeploy":    {"my-site", "https://app.netlify.com/sites/other/deploys/" + id, ""},
		"LongerName":          {"my-site", "https://deploy-preview-12--my-site-2.netlify.app", ""},
		"NameAtTheEnd":        {"my-site", "https://deploy-preview-12--evil--my-site.netlify.app", ""},
		"OtherDomain":         {"my-site", "https://deploy-preview-12--my-site.netlify.app.evil.example", ""},
		"OtherDomainByDot":    {"my-site", "https://deploy-preview-12--my-site-netlify.app", ""},
		"OtherDomainByUser":   {"my-site", "https://deploy-preview-12--my-site.netlify.app@evil.example", ""},
		"OtherDomainByPath":   {"my-site", "https://evil.example/https://deploy-preview-12--my-site.netlify.app", ""},
		"SecondLine":          {"my-site", "https://evil.example\nhttps://deploy-preview-12--my-site.netlify.app", ""},
		"SecondLineBehind":    {"my-site", "https://deploy-preview-12--my-site.netlify.app\nKV_BASE_URL=https://evil.example", ""},
		"Production":          {"my-site", "https://my-site.netlify.app", ""},
		"Branch":              {"my-site", "https://main--my-site.netlify.app", ""},
		"WithoutTLS":          {"my-site", "http://deploy-preview-12--my-site.netlify.app", ""},
		"WithPath":            {"my-site", "https://deploy-preview-12--my-site.netlify.app/page", ""},
		"NoAddress":           {"my-site", "", ""},
		"IDTooShort":          {"my-site", "https://app.netlify.com/sites/my-site/deploys/0123", ""},
		"Command":             {"my-site", "$(touch /tmp/x)`touch /tmp/x`\"; touch /tmp/x", ""},
		"ErrSiteIsAPattern":   {".*", "https://deploy-preview-12--other.netlify.app", "error"},
		"ErrSiteIsAnAddress":  {"my-site.netlify.app", "https://deploy-preview-12--my-site.netlify.app", "error"},
		"ErrSiteOfTwoLines":   {"my-site\nother", "https://deploy-preview-12--my-site.netlify.app", "error"},
		"ErrSiteInUpperCases": {"My-Site", "https://deploy-preview-12--my-site.netlify.app", "error"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			env, output, script := filepath.Join(dir, "env"), filepath.Join(dir, "output"), filepath.Join(dir, "script")
			require.NoError(t, os.WriteFile(script, []byte(choose.Run), 0o600))
			cmd := exec.Command("bash", "--noprofile", "--norc", "-eo", "pipefail", script) // as GitHub runs `shell: bash`
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "SITE=" + c.site, "TARGET_URL=" + c.target, "GITHUB_ENV=" + env, "GITHUB_OUTPUT=" + output,
				"GITHUB_RUN_ID=123", "GITHUB_RUN_ATTEMPT=1"}
			out, err := cmd.CombinedOutput()
			if c.address == "error" {
				require.Error(t, err)
				require.Contains(t, string(out), "::error::the variable NETLIFY_SITE_NAME")
				require.NoFileExists(t, env)
				return
			}
			require.NoError(t, err, "%s", out)
			if c.address == "" {
				require.Contains(t, string(out), "::notice::not a preview of my-site")
				require.NoFileExists(t, env)
				require.NoFileExists(t, output)
				return
			}
			set, err := os.ReadFile(env)
			require.NoError(t, err)
			require.Regexp(t, `^KV_BASE_URL=`+regexp.QuoteMeta(c.address)+`\nE2E_RUN=\d{8}T\d{6}-123-1\n$`, string(set))
			found, err := os.ReadFile(output)
			require.NoError(t, err)
			require.Equal(t, "found=true", strings.TrimSpace(string(found)))
		})
	}
}
