import type { Command } from 'commander'
import { exitCodeOf, exitCodes, reportFailure } from './failure.ts'
import { type Output, openOutput } from './output.ts'

/** What the commands have of the world around them. `finish` is told the exit code of the one that ran. */
export type Here = { env: NodeJS.ProcessEnv; finish: (code: number) => void }

/** The options that every command of an author or a runner has. */
export type CommonFlags = { registry?: string; json?: true; quiet?: true }

/** A command at work. `signal` aborts on Ctrl-C. */
export type Run = { env: NodeJS.ProcessEnv; flags: CommonFlags; output: Output; signal: AbortSignal }

/** The same Ctrl-C may arrive twice: from the terminal, and handed on by npm. */
const sameSignalMs = 1_000

/** Adds the options of every command, and an example to its help. `registry`: whether it speaks to one. */
export function common(command: Command, example: string, { registry = true } = {}): Command {
  if (registry)
    command.option(
      '--registry <url>',
      'address of the registry (default: PACKS_REGISTRY, else that of the last login, else http://127.0.0.1:5000)',
    )
  return command
    .option('--json', 'the result, or the error, as one JSON document')
    .option('--quiet', 'say nothing but the result')
    .addHelpText('after', `\nExample:\n${example.replace(/^/gm, '  ')}`)
}

/**
 * Does a command's work, from its options to its exit code. Ctrl-C aborts the work, which then cleans up after itself; a
 * second one, by somebody who will not wait, ends the process. What it throws has an exit code.
 */
export async function run(here: Here, flags: CommonFlags, work: (run: Run) => Promise<void>): Promise<void> {
  const output = openOutput(here.env, flags)
  const cancelled = new AbortController()
  const cancel = () => {
    cancelled.abort()
    setTimeout(release, sameSignalMs).unref()
  }
  const signals = ['SIGINT', 'SIGTERM'] as const
  const release = () => {
    for (const signal of signals) process.off(signal, cancel)
  }
  for (const signal of signals) process.on(signal, cancel)
  try {
    await work({ env: here.env, flags, output, signal: cancelled.signal })
    here.finish(exitCodes.ok)
  } catch (error) {
    reportFailure(error, { json: output.json, cancelled: cancelled.signal.aborted, env: here.env })
    here.finish(cancelled.signal.aborted ? exitCodes.cancelled : exitCodeOf(error))
  } finally {
    release()
  }
}
