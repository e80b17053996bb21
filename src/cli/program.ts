import { Command } from 'commander'
import { addAudit } from './audit.ts'
import { addBundle } from './bundle.ts'
import { addChanges } from './change.ts'
import { addDiff } from './diff.ts'
import { addEvents } from './events.ts'
import { addExport } from './export.ts'
import { addExports } from './exports.ts'
import { exitCodes } from './failure.ts'
import { addGraph } from './graph.ts'
import { addHold } from './hold.ts'
import { addImport } from './import.ts'
import { addImports } from './imports.ts'
import { addInfo } from './info.ts'
import { addInit } from './init.ts'
import { addInventory } from './inventory.ts'
import { addJobs } from './jobs.ts'
import { addKeys } from './keys.ts'
import { addLogin } from './login.ts'
import { addMirror } from './mirror.ts'
import { addPolicy } from './policy.ts'
import { addPublish } from './publish.ts'
import { addPull } from './pull.ts'
import { addQuota } from './quota.ts'
import { addResolve } from './resolve.ts'
import { addRetention } from './retention.ts'
import { addSearch } from './search.ts'
import { addServerCommands } from './server-commands.ts'
import { addToken } from './token.ts'
import { addUpkeep } from './upkeep.ts'
import { addValidate } from './validate.ts'
import { version } from './version.ts'
import { addWebhook } from './webhook.ts'

/** Every command. `finish` is told the exit code of the one that ran. */
export function program(env: NodeJS.ProcessEnv, finish: (code: number) => void): Command {
  const here = { env, finish }
  const packs = new Command('packs')
    .description('PacksRegistry: an OCI registry for packs, over PostgreSQL and a blob store')
    .version(version)
    .helpCommand(false)
    // What stands behind "packs scrub findings" belongs to that, although "packs scrub" has options too.
    .enablePositionalOptions()
    .addHelpText('after', `\n${exits}`)
    .showHelpAfterError()
    .exitOverride((error) => {
      throw Object.assign(error, { exitCode: error.exitCode === 0 ? exitCodes.ok : exitCodes.failed })
    })

  packs.commandsGroup('For authors:')
  addInit(packs, here)
  addValidate(packs, here)
  addPublish(packs, here)
  addChanges(packs, here)

  packs.commandsGroup('For runners:')
  addSearch(packs, here)
  addInfo(packs, here)
  addDiff(packs, here)
  addGraph(packs, here)
  addResolve(packs, here)
  addPull(packs, here)

  packs.commandsGroup('For both:')
  addLogin(packs, here)

  packs.commandsGroup('Across an air gap:')
  addExport(packs, here)
  addExports(packs, here)
  addImport(packs, here)
  addImports(packs, here)
  addInventory(packs, here)
  addBundle(packs, here)
  addKeys(packs, here)

  packs.commandsGroup('To run a registry:')
  addServerCommands(packs, env, finish)
  addUpkeep(packs, here)
  addToken(packs, here)
  addQuota(packs, here)
  addPolicy(packs, here)
  addAudit(packs, here)
  addJobs(packs, here)
  addMirror(packs, here)
  addRetention(packs, here)
  addHold(packs, here)
  addEvents(packs, here)
  addWebhook(packs, here)
  return packs
}

const exits = `Exit codes: 0 done, 1 usage, a missing file or no registry, 2 digest or size mismatch, 5 signature,
8 would go backwards, 11 refused by a rule, 130 cancelled.`
