// Builds the Go functions of one folder with Netlify's own bundler: node bundle.mjs <functions> <destination>
// zipGo is what Netlify's build sets, so that each zip holds the program as `bootstrap`, ready for the Lambda Runtime API.
import process from 'node:process'

import { zipFunctions } from '@netlify/zip-it-and-ship-it'

const [functions, destination] = process.argv.slice(2)

try {
  await zipFunctions(functions, destination, { config: { '*': { zipGo: true } } })
} catch (error) {
  console.error(error.stderr || error.message)
  process.exitCode = 1
}
