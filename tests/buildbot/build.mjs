// Builds one site as Netlify's machines do: node build.mjs <node_modules> <site> <settings> <result.json> <path>…
// The result has the functions that the build packaged, and for each path the rule that matches it.
import { readFile, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import process from 'node:process'
import { pathToFileURL } from 'node:url'

const [modules, site, settings, result, ...paths] = process.argv.slice(2)
const load = (path) => import(pathToFileURL(join(modules, path)))

const { default: build } = await load('@netlify/build/lib/index.js')
const { success, netlifyConfig } = await build({
  cwd: site,
  repositoryRoot: site,
  mode: 'buildbot',
  context: 'production',
  branch: 'main',
  offline: true,
  telemetry: false,
  defaultConfig: JSON.parse(settings),
})
if (!success) {
  process.exit(1)
}

// The manifest is beside the packaged functions, in the folder where the build ran.
const base = netlifyConfig.build.base ?? site
const { functions } = JSON.parse(await readFile(join(base, '.netlify', 'functions', 'manifest.json'), 'utf8'))
await writeFile(result, JSON.stringify({ functions, routes: await routes() }))

// routes parses the rules and calls the matcher as netlify dev does.
async function routes() {
  const { parseAllRedirects } = await load('@netlify/redirect-parser/lib/index.js')
  const { redirects, errors } = await parseAllRedirects({
    redirectsFiles: [resolve(netlifyConfig.build.publish, '_redirects')],
    configRedirects: netlifyConfig.redirects,
  })
  if (errors.length !== 0) {
    throw errors[0]
  }
  const { default: redirector } = await load('netlify-redirector/index.js')
  const rules = redirects.map(({ from, query, ...rule }) => ({ ...rule, origin: from, params: query }))
  const matcher = await redirector.parseJSON(JSON.stringify(rules), {})
  return Object.fromEntries(paths.map((path) => [path, matcher.match(request(path)) ?? null]))
}

function request(path) {
  return { scheme: 'https', host: 'site.example', path, query: '', getHeader: () => '', getCookie: () => '' }
}
