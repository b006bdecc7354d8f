// What the suites of this folder share. clients_test.go runs them, and says where the site and the packages are.
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

export const site = process.env.KV_BASE_URL
export const token = process.env.KV_CLIENTS_TOKEN
export const release = process.env.KV_CLIENTS_RELEASE // the package to test, as in scripts/platform/npm/clients/package.json

const resolve = createRequire(join(process.env.KV_CLIENTS_MODULES, 'none.js')).resolve

// load imports a package, or a part of it, as an application would.
export const load = async (name) => {
  const module = await import(pathToFileURL(resolve(name)))
  return module.default && typeof module.default === 'object' ? module.default : module
}

// options are what somebody changes who moves from Netlify Blobs.
export const options = (name, more = {}) => ({ name, siteID: 'api/kv/blobs', token, edgeURL: site, uncachedEdgeURL: site, ...more })

// unique returns the name of a store that no other test uses.
let stores = 0
export const unique = (name) => `clients-${process.env.KV_CLIENTS_RUN}-${release.replace(/\W/g, '')}-${name}-${++stores}`

// entries calls kv-entries, which these protocols share their stores with.
export const entries = (method, path, { headers = {}, body } = {}) =>
  fetch(`${site}/api/kv/entries/${path}`, { method, headers: { authorization: `Bearer ${token}`, ...headers }, body })
