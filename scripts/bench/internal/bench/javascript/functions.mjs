// Functions with supabase-js for a plain table, in place of this project's functions, and a loop that runs them as Node's Lambda runtime
// does: one event at a time. The measured time includes parsing the event and encoding the response.
//
// usage: node functions.mjs <folder of node_modules>; SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY are set.
// stdin: one line "<function> <event as JSON>" per call; stdout: one line "<milliseconds> <response as JSON>" per call.
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

const { createClient } = createRequire(`${process.argv[2]}/package.json`)('@supabase/supabase-js')
const supabase = createClient(process.env.SUPABASE_URL, process.env.SUPABASE_SERVICE_ROLE_KEY, {
  auth: { persistSession: false },
  realtime: { transport: globalThis.WebSocket ?? class {} }, // createClient requires one, which Node 20 lacks; it is not used
})

const headers = { 'Content-Type': 'application/json', 'Access-Control-Allow-Origin': '*' }
const respond = (statusCode, body) => ({ statusCode, headers, body: JSON.stringify({ ...body, timestamp: new Date().toISOString() }) })
const rows = ({ data, error }) => {
  if (error) throw new Error(error.message)
  return data
}

// after returns the smallest text after all texts with the prefix, whose last character is ASCII here.
const after = (prefix) => prefix.slice(0, -1) + String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1)

const functions = {
  async 'kv-get'({ queryStringParameters: { key } }) {
    const row = rows(await supabase.from('bench_plain').select('value').eq('key', key).maybeSingle())
    return row ? respond(200, { key, value: row.value, exists: true }) : respond(404, { error: 'Key not found', key, exists: false })
  },
  async 'kv-list'({ queryStringParameters: { prefix, index, includeValues, limit } }) {
    let query = supabase.from('bench_plain').select(includeValues === 'true' ? 'key,value' : 'key')
    if (prefix) query = query.gte('key', prefix).lt('key', after(prefix))
    if (index) query = query.contains('indexes', [index])
    const found = rows(await query.order('key').limit(Number(limit)))
    const data = includeValues === 'true' ? { data: Object.fromEntries(found.map((row) => [row.key, row.value])) } : {}
    return respond(200, { keys: found.map((row) => row.key), count: found.length, ...data })
  },
  async 'kv-upsert'({ body }) {
    const { key, value, indexes } = JSON.parse(body)
    const row = { key, value, indexes: indexes.map((pair) => `${pair.key}:${pair.member}`), updated_at: new Date().toISOString() }
    rows(await supabase.from('bench_plain').upsert(row))
    return respond(200, { ok: true, key })
  },
}

for await (const line of createInterface({ input: process.stdin })) {
  const space = line.indexOf(' ')
  const began = performance.now()
  let response
  try {
    response = await functions[line.slice(0, space)](JSON.parse(line.slice(space + 1)))
  } catch (error) {
    response = respond(500, { error: String(error) })
  }
  const text = JSON.stringify(response)
  process.stdout.write(`${performance.now() - began} ${text}\n`)
}
