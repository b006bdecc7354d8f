// The unchanged @netlify/blobs, on kv-blobs-api and on the server that it brings along. That one runs in a process of its own, as the functions do.
//
// usage: node blobs.mjs <folder with node_modules>; KV_BASE_URL is set.
// stdin: one line "<server> <call as JSON>" per call; stdout: one line "<milliseconds> <response as JSON>" per call.
import { fork } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const load = createRequire(`${process.argv[2]}/package.json`)

if (process.argv[3]) {
  const server = new (load('@netlify/blobs/server').BlobsServer)({ directory: process.argv[3], token: 'bench' })
  process.send((await server.start()).port)
  process.on('disconnect', () => process.exit())
} else {
  const { getStore } = load('@netlify/blobs')
  const directory = await mkdtemp(join(tmpdir(), 'kv-bench-'))
  const server = fork(fileURLToPath(import.meta.url), [process.argv[2], directory])
  const port = await new Promise((resolve, reject) => server.once('message', resolve).once('exit', reject))
  const token = (process.env.KV_API_TOKEN ?? '').split(',')[0] || 'bench'
  const at = (address, more) => getStore({ name: 'bench', token, edgeURL: address, uncachedEdgeURL: address, ...more })
  const stores = {
    'kv-blobs-api': at(process.env.KV_BASE_URL, { siteID: 'api/kv/blobs' }),
    BlobsServer: at(`http://127.0.0.1:${port}`, { siteID: 'bench', token: 'bench' }),
  }

  for await (const line of createInterface({ input: process.stdin })) {
    const space = line.indexOf(' ')
    const { method, key, text } = JSON.parse(line.slice(space + 1))
    const began = performance.now()
    let body
    try {
      body = method === 'set' ? (await stores[line.slice(0, space)].set(key, text), text) : await stores[line.slice(0, space)].get(key)
    } catch (error) {
      body = String(error)
    }
    process.stdout.write(`${performance.now() - began} ${JSON.stringify({ body })}\n`)
  }
  server.disconnect()
  await rm(directory, { recursive: true })
}
