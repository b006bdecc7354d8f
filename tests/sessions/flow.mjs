// What somebody does who logs in: in the browser of the argument, or without one by HTTP, with a cookie jar.
// sessions_test.go has built the app in the folder APP, whose sessions are in STORE at SITE.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const { APP, STORE, SITE, KV_API_TOKEN } = process.env
const executablePath = process.argv[2]
const { chromium, request } = createRequire(join(APP, 'package.json'))('playwright-core')
const timeout = 120_000 // a page takes less than a second
const sleepUntil = async (end) => {
  while (performance.now() < end) await new Promise((done) => setTimeout(done, end - performance.now()))
}

const { listener } = await import(pathToFileURL(join(APP, '.output/server/index.mjs')))
const server = createServer(listener).listen(0, '127.0.0.1')
await once(server, 'listening')
const baseURL = `http://127.0.0.1:${server.address().port}`

// A visitor has cookies that no other visitor has. Each step returns the session that the page shows afterwards.
const byHTTP = async (extraHTTPHeaders = {}) => {
  const context = await request.newContext({ baseURL, timeout, extraHTTPHeaders })
  const shown = async (response) => {
    assert.equal(response.status(), 200, `${response.url()}\n${await response.text()}`)
    const [, text] = /<pre>(.*)<\/pre>/s.exec(await response.text())
    return JSON.parse(text.replace(/&#(\d+);/g, (_, code) => String.fromCharCode(code)))
  }
  return {
    load: async () => shown(await context.get('/')),
    logIn: async (name, seconds) => shown(await context.post('/login', { form: { name, seconds } })),
    logOut: async () => shown(await context.post('/logout')),
    cookies: async () => (await context.storageState()).cookies,
  }
}

let browser
const byChromium = async () => {
  browser ??= await chromium.launch({ executablePath, timeout, args: ['--no-sandbox', '--disable-gpu', '--disable-quic'] })
  const context = await browser.newContext({ baseURL })
  const page = await context.newPage()
  page.setDefaultTimeout(timeout)
  const shown = async () => JSON.parse(await page.textContent('pre'))
  const submit = async (name) => {
    await Promise.all([page.waitForEvent('load'), page.getByRole('button', { name }).click()])
    return shown()
  }
  await page.goto('/')
  return {
    load: async () => {
      await page.reload()
      return shown()
    },
    logIn: async (name, seconds) => {
      await page.getByLabel('Name').fill(name)
      await page.getByLabel('Stay logged in for').fill(String(seconds))
      return submit('Log in')
    },
    logOut: () => submit('Log out'),
    cookies: () => context.cookies(),
  }
}

const open = executablePath ? byChromium : byHTTP
const idOf = async (visitor) => (await visitor.cookies()).find((cookie) => cookie.name === 'session')?.value
const entry = (id) => fetch(`${SITE}/api/kv/entries/${STORE}/${id}`, { headers: { authorization: `Bearer ${KV_API_TOKEN}` } })
const isGone = async (id, why) => assert.equal((await entry(id)).status, 404, `the entry of a session that ${why}`)

const flow = async () => {
  const name = 'Ünï 日本 😀 & <b>"Ann"</b>'
  const [ann, other] = [await open(), await open()]

  // Logged in, and after a reload.
  assert.equal(await ann.load(), null, 'nobody has logged in')
  const session = await ann.logIn(name, 3600)
  assert.deepEqual({ name: session?.name, cart: session?.cart }, { name, cart: [{ item: 'tea', price: 2.5 }] }, 'the session after the login')
  assert.deepEqual(await ann.load(), session, 'the session after a reload')
  const id = await idOf(ann)
  const kept = await entry(id)
  assert.deepEqual(await kept.json(), session, 'the entry of the session')
  const left = new Date(kept.headers.get('x-kv-expires')) - Date.now()
  assert.ok(Math.abs(left / 3_600_000 - 1) < 0.2, `the entry expires in ${left} ms, of 3,600,000`)

  // Nobody else is.
  assert.equal(await other.load(), null, 'another visitor, without the cookie')
  for (const wrong of ['0'.repeat(36), '..', ':', `${id}?`, `x:${id}`, '']) {
    assert.equal(await (await byHTTP({ cookie: `session=${wrong}` })).load(), null, `a visitor with the cookie ${wrong}`)
  }

  // Expired. On a machine so slow that the page after the login comes too late, the session gets longer.
  assert.equal(await ann.logOut(), null, 'the session after a logout')
  await isGone(id, 'has ended with a logout')
  let ends
  for (let seconds = 2, brief = null; !brief; seconds *= 2) {
    const began = performance.now()
    brief = await ann.logIn(name, seconds)
    ends = performance.now() + seconds * 1000
    if (!brief) assert.ok(performance.now() - began >= seconds * 1000, `a session of ${seconds} s has ended early`)
  }
  await sleepUntil(ends)
  assert.equal(await ann.load(), null, 'the session after its expiry')
  const expired = await idOf(ann)
  assert.ok(expired, 'the browser still sends the cookie: the store has ended the session')
  await isGone(expired, 'has expired')

  // Logged in again, and out.
  assert.equal((await ann.logIn(name, 3600))?.name, name, 'the session after another login')
  const last = await idOf(ann)
  assert.notEqual(last, expired, 'every session has an id of its own')
  assert.equal(await ann.logOut(), null, 'the session after a logout')
  assert.equal(await idOf(ann), undefined, 'the cookie after a logout')
  await isGone(last, 'has ended with a logout')
  assert.equal(await (await byHTTP({ cookie: `session=${last}` })).load(), null, 'a visitor with the cookie of a session that has ended')
}

// Nitro would only log an error that nothing catches.
const error = await flow().then(() => undefined, (error) => error)
await browser?.close()
if (error) console.error(error)
process.exit(error ? 1 : 0)
