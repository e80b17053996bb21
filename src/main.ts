import { CommanderError } from 'commander'
import { program } from './cli/program.ts'

/** Runs one command. The exit code is 0 when it did what was asked, 1 for a usage or start-up problem. */
async function main(): Promise<number> {
  let code = 0
  try {
    const packs = program(process.env, (finished) => {
      code = finished
    })
    await packs.parseAsync(process.argv)
  } catch (error) {
    // The parser has said already what is wrong with the command line, or shown the help.
    if (error instanceof CommanderError) return error.exitCode
    const { message, stack } = error as Error
    process.stderr.write(`\n${process.env.LOG_LEVEL === 'debug' ? stack : message}\n`)
    return 1
  }
  return code
}

process.exit(await main())
