import { Command } from 'commander'
import { exitCodes } from './failure.ts'
import { addInit } from './init.ts'
import { addJobs } from './jobs.ts'
import { addServerCommands } from './server-commands.ts'
import { addValidate } from './validate.ts'
import { version } from './version.ts'

/** Every command. `finish` is told the exit code of the one that ran. */
export function program(env: NodeJS.ProcessEnv, finish: (code: number) => void): Command {
  const here = { env, finish }
  const packs = new Command('packs')
    .description('PacksRegistry: an OCI registry for packs, over PostgreSQL and a blob store')
    .version(version)
    .showHelpAfterError()
    .exitOverride((error) => {
      throw Object.assign(error, { exitCode: error.exitCode === 0 ? exitCodes.ok : exitCodes.failed })
    })

  packs.commandsGroup('For authors:')
  addInit(packs, here)
  addValidate(packs, here)

  packs.commandsGroup('To run a registry:')
  addServerCommands(packs, env, finish)
  addJobs(packs, here)
  return packs
}
