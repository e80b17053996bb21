import { Command } from 'commander'
import { describeSettings, readConfig, type SettingName, settings } from '../config.ts'
import { startEmbedded } from '../db/embedded.ts'
import { migrate } from '../db/migrate.ts'
import { type RebuildFlags, rebuild } from './rebuild.ts'
import { serve } from './serve.ts'
import { version } from './version.ts'

/** The exit code of usage errors. */
const usageError = 1

/** Every command. `finish` is told the exit code of the one that ran. */
export function program(env: NodeJS.ProcessEnv, finish: (code: number) => void): Command {
  const packs = new Command('packs')
    .description('PacksRegistry: an OCI registry for packs, over PostgreSQL and a blob store')
    .version(version)
    .showHelpAfterError()
    .exitOverride((error) => {
      throw Object.assign(error, { exitCode: error.exitCode === 0 ? 0 : usageError })
    })

  withSettings(packs.command('serve').description('serve the registry until it is told to stop')).action(
    async (flags: Flags) => {
      const source = overlaid(env, flags)
      // Workers are started with this process's environment: they have to see the flags too.
      Object.assign(env, source)
      finish(await serve(readConfig(source), env))
    },
  )
  withSettings(packs.command('migrate').description("bring the database's schema up to this version, and end")).action(
    async (flags: Flags) => {
      const config = readConfig(overlaid(env, flags))
      const embedded = config.databaseUrl ? undefined : await startEmbedded({ dataDir: config.dataDir })
      try {
        const applied = await migrate(config.databaseUrl ?? embedded?.url ?? '')
        process.stdout.write(applied.length > 0 ? `applied ${applied.join(', ')}\n` : 'nothing to do\n')
      } finally {
        await embedded?.stop()
      }
      finish(0)
    },
  )
  withSettings(packs.command('config').description('print the effective settings, secrets masked'))
    .option('--json', 'as one JSON object')
    .action((flags: Flags & { json?: true }) => {
      const source = overlaid(env, flags)
      readConfig(source)
      const all = describeSettings(source)
      process.stdout.write(
        flags.json
          ? `${JSON.stringify(Object.fromEntries(all.map(({ name, value }) => [name, value])), undefined, 2)}\n`
          : all.map(({ name, value }) => `${name.padEnd(14)} ${value || '(not set)'}\n`).join(''),
      )
      finish(0)
    })
  withSettings(packs.command('rebuild').description('make what the facade says of packs again from their manifests'))
    .option('--dry-run', 'say what differs, and change nothing')
    .option('--json', 'as one JSON object')
    .action(async (flags: Flags & RebuildFlags) => {
      finish(await rebuild(readConfig(overlaid(env, flags)), flags, (text) => process.stdout.write(text)))
    })
  return packs
}

type Flags = Record<string, string | boolean | undefined>

/** Every setting as a flag: DATA_DIR is --data-dir. */
function withSettings(command: Command): Command {
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
function overlaid(env: NodeJS.ProcessEnv, flags: Flags): NodeJS.ProcessEnv {
  const given: NodeJS.ProcessEnv = {}
  for (const name of Object.keys(settings) as SettingName[]) {
    const camel = flagOf(name).replace(/-(.)/g, (_, letter: string) => letter.toUpperCase())
    const value = flags[camel]
    if (typeof value === 'string') given[name] = value
  }
  return { ...env, ...given }
}
