export default defineNitroConfig({
  preset: 'node-listener', // flow.mjs starts the server, on any free port
  compatibilityDate: '2026-11-01',
})
