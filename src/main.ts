import { CommanderError } from 'commander'
import { exitCodeOf, exitCodes, reportFailure, reportUsage } from './cli/failure.ts'
import { program } from './cli/program.ts'

/** Runs one command. The exit codes are a table in cli/failure.ts. */
async function main(): Promise<number> {
  let code = 0
  try {
    const packs = program(process.env, (finished) => {
      code = finished
    })
    await packs.parseAsync(process.argv)
  } catch (error) {
    const json = process.argv.includes('--json')
    if (error instanceof CommanderError) {
      // The parser has said already what is wrong with the command line, or shown the help.
      if (json && error.exitCode !== 0) reportUsage(error.message)
      return error.exitCode
    }
    reportFailure(error, { json, env: process.env })
    return exitCodeOf(error)
  }
  return code
}

// Whoever reads the output has seen enough, such as `head`.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0)
  process.stderr.write(`error: the result cannot be written: ${error.message}\n`)
  process.exit(exitCodes.failed)
})
// Nobody listens to what is said on the way any more, and the work goes on: a pull is worth having all the same.
process.stderr.on('error', () => undefined)
const code = await main()
// A pipe takes what its reader has room for, and exit() throws the rest away.
for (const stream of [process.stdout, process.stderr]) await new Promise((resolve) => stream.write('', resolve))
process.exit(code)
