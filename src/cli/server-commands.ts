import type { Command } from 'commander'
import { describeSettings, readConfig, type SettingName, settings } from '../config.ts'

/**
 * The commands that run a registry. What they stand on (server, database, S3) is loaded when one of them runs: the
 * commands of authors and runners start in half the time without it. `finish` is told the exit code.
 */
export function addServerCommands(packs: Command, env: NodeJS.ProcessEnv, finish: (code: number) => void): void {
  withSettings(packs.command('serve').description('serve the registry until it is told to stop'))
    .addHelpText('after', '\nExample:\n  packs serve --port 5000 --data-dir ./data')
    .action(async (flags: Flags) => {
      const source = overlaid(env, flags)
      // Workers are started with this process's environment: they have to see the flags too.
      Object.assign(env, source)
      const { serve } = await import('./serve.ts')
      finish(await serve(readConfig(source), env))
    })
  withSettings(
    packs
      .command('worker')
      .description(
        'run jobs (garbage collection, imports, mirrors), and serve nothing but probes on WORKER_PORT, until told to stop',
      ),
  )
    .addHelpText(
      'after',
      '\nExample:\n  DATABASE_URL=postgres://packs:secret@db/packs BLOB_STORE=s3://packs packs worker',
    )
    .action(async (flags: Flags) => {
      const { work } = await import('./worker.ts')
      finish(await work(readConfig(overlaid(env, flags))))
    })
  withSettings(packs.command('migrate').description("bring the database's schema up to this version, and end"))
    .addHelpText('after', '\nExample:\n  DATABASE_URL=postgres://packs:secret@db/packs packs migrate')
    .action(async (flags: Flags) => {
      await migrateOnce(overlaid(env, flags))
      finish(0)
    })
  withSettings(
    packs
      .command('config')
      .description('print the effective settings, secrets masked')
      .option('--json', 'as one JSON object'),
  )
    .addHelpText('after', '\nExample:\n  packs config --json')
    .action((flags: Flags & { json?: true }) => {
      const source = overlaid(env, flags)
      readConfig(source)
      const all = describeSettings(source)
      process.stdout.write(
        flags.json
          ? `${JSON.stringify(Object.fromEntries(all.map(({ name, value }) => [name, value])), undefined, 2)}\n`
          : all.map(({ name, value }) => `${name.padEnd(18)} ${value || '(not set)'}\n`).join(''),
      )
      finish(0)
    })
}

async function migrateOnce(source: NodeJS.ProcessEnv): Promise<void> {
  const { startEmbedded } = await import('../db/embedded.ts')
  const { migrate } = await import('../db/migrate.ts')
  const { reaching } = await import('./database.ts')
  const config = readConfig(source)
  const embedded = config.databaseUrl ? undefined : await startEmbedded({ dataDir: config.dataDir })
  try {
    const applied = await reaching(config, () => migrate(config.databaseUrl ?? embedded?.url ?? ''))
    process.stdout.write(applied.length > 0 ? `applied ${applied.join(', ')}\n` : 'nothing to do\n')
  } finally {
    await embedded?.stop()
  }
}

export type Flags = Record<string, string | number | boolean | undefined>

/** Every setting as a flag: DATA_DIR is --data-dir. In the help they stand below the options that the command has by then. */
export function withSettings(command: Command): Command {
  command.optionsGroup('Settings:')
  for (const [name, setting] of Object.entries(settings)) {
    const fallback = 'fallback' in setting ? ` (default: ${setting.fallback})` : ''
    command.option(`--${flagOf(name)} <value>`, `${setting.help}${fallback}; or ${name} in the environment`)
  }
  return command
}

function flagOf(name: string): string {
  return name.toLowerCase().replaceAll('_', '-')
}

/** The environment with the flags that were given over it. */
export function overlaid(env: NodeJS.ProcessEnv, flags: Flags): NodeJS.ProcessEnv {
  const given: NodeJS.ProcessEnv = {}
  for (const name of Object.keys(settings) as SettingName[]) {
    const camel = flagOf(name).replace(/-(.)/g, (_, letter: string) => letter.toUpperCase())
    const value = flags[camel]
    if (typeof value === 'string') given[name] = value
  }
  return { ...env, ...given }
}
