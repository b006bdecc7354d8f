// What each client makes of each status. The server here answers everything with one status, as our functions do; the
// table is printed into KV_CLIENTS_TABLE, and clients_test.go compares it with the documentation.
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { once } from 'node:events'
import { test } from 'node:test'
import { writeFileSync } from 'node:fs'
import { load } from './lib.mjs'

const statuses = process.env.KV_CLIENTS_STATUSES.split(',').map(Number)
let status, requests
const server = createServer((request, response) => {
  requests++
  request.resume()
  request.on('end', () => {
    response.writeHead(status, { 'content-type': 'application/json', 'x-nf-error': 'why' })
    response.end(JSON.stringify({ error: 'why', code: 'a_code', timestamp: '2027-01-02T03:04:05.678Z' }))
  })
}).listen(0, '127.0.0.1')
await once(server, 'listening')
const address = `http://127.0.0.1:${server.address().port}`

const described = (value) => {
  if (value === undefined) return 'done'
  if (value === null) return '`null`'
  if (value === false || value === true) return `\`${value}\``
  if (Array.isArray(value)) return value.length ? 'keys' : 'no keys'
  if (value.blobs) return value.blobs.length ? 'blobs' : 'no blobs'
  return '`' + JSON.stringify(value).replace(/"(\w+)":/g, '$1: ').replace(/,/g, ', ').replace(/"/g, "'") + '`'
}

// outcome runs an operation, and says what the caller gets and how often the client asked.
const outcome = async (operation) => {
  requests = 0
  let text
  try {
    text = described(await operation())
  } catch (error) {
    text = 'throws'
  }
  return requests > 1 ? `${text}, tries ${requests} times` : text
}

const blobs = async (release) => {
  const { getStore } = await load(release)
  const store = getStore({ name: 's', siteID: 'api/kv/blobs', token: 't', edgeURL: address, uncachedEdgeURL: address })
  const all = {
    'get, getMetadata, getWithMetadata': [() => store.get('k'), () => store.getMetadata('k'), () => store.getWithMetadata('k')],
    list: [() => store.list()],
    'set, setJSON': [() => store.set('k', 'v').then(() => undefined), () => store.setJSON('k', 1).then(() => undefined)],
    delete: [() => store.delete('k')],
  }
  if (release !== 'blobs-8') all['set, setJSON with a condition'] = [() => store.set('k', 'v', { onlyIfNew: true }), () => store.setJSON('k', 1, { onlyIfMatch: '"e"' })]
  if (store.deleteAll) all.deleteAll = [() => store.deleteAll()]
  return all
}

const unstorage = async (release) => {
  const { createStorage } = await load(release)
  const driver = (await load(`${release}/drivers/http`)).default
  const storage = createStorage({ driver: driver({ base: `${address}/api/kv/storage/s` }) })
  return {
    getItem: [() => storage.getItem('k')],
    hasItem: [() => storage.hasItem('k')],
    getKeys: [() => storage.getKeys()],
    'setItem, setItemRaw': [() => storage.setItem('k', 'v'), () => storage.setItemRaw('k', 'v')],
    'removeItem, clear': [() => storage.removeItem('k'), () => storage.clear()],
  }
}

// table returns the outcomes of the first release, with which the others must agree.
const table = async (releases, operationsOf) => {
  const rows = {}
  for (const release of releases) {
    for (const [name, operations] of Object.entries(await operationsOf(release))) {
      for (status of statuses) {
        for (const operation of operations) {
          const got = await outcome(operation)
          rows[status] ??= {}
          rows[status][name] ??= got
          assert.equal(got, rows[status][name], `${release}, ${name}, ${status}`)
        }
      }
    }
  }
  const names = Object.keys(rows[statuses[0]])
  const line = (cells) => `| ${cells.join(' | ')} |\n`
  const alike = new Map() // the statuses with the same outcomes, in one line
  for (const s of statuses) {
    const cells = names.map((name) => rows[s][name]).join(' | ')
    alike.set(cells, [...(alike.get(cells) ?? []), s])
  }
  return line(['status', ...names]) + line(['---', ...names.map(() => '---')]) + [...alike].map(([cells, list]) => line([list.join(', '), cells])).join('')
}

test('each status', async () => {
  const parts = [
    ['@netlify/blobs 8, 10 and 11', ['@netlify/blobs', 'blobs-10', 'blobs-8'], blobs],
    ['unstorage 1, driver `http`', ['unstorage-1'], unstorage],
    ['unstorage 2, driver `http`', ['unstorage-2'], unstorage],
  ]
  let text = ''
  for (const [title, releases, operationsOf] of parts) text += `${title}:\n\n${await table(releases, operationsOf)}\n`
  writeFileSync(process.env.KV_CLIENTS_TABLE, text)
  server.close()
  server.closeAllConnections()
})
