import type { Command } from 'commander'
import type { ApiToken, TokenAction } from '../client/client.ts'
import { connect } from './connect.ts'
import { aligned, table } from './output.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'

type CreateFlags = CommonFlags & {
  name: string
  expires?: string
  admin?: true
} & { [action in TokenAction]?: string[] }

/** The commands for the tokens that programs log in with. */
export function addToken(packs: Command, here: Here): void {
  const token = packs.command('token').description('API tokens: what programs log in with')
  token.addHelpText(
    'after',
    "\nExample:\n  packs token create --name ci --pull 'packs/*' --push 'packs/net-*' --expires 90d",
  )
  const several = (glob: string, before: string[] = []) => [...before, glob]
  const create = token
    .command('create')
    .description('make a token; it is shown this once')
    .requiredOption('--name <name>', 'what to call it, such as ci')
    .option('--pull <glob>', 'repositories it may read; again for more', several)
    .option('--push <glob>', 'repositories it may make tags and packs in; again for more', several)
    .option('--overwrite <glob>', 'repositories where it may move tags and channels; again for more', several)
    .option('--delete <glob>', 'repositories it may delete from; again for more', several)
    .option('--admin', 'it may do what administrators do: keys, tokens, jobs, the audit')
    .option('--expires <when>', '90d, 12h, a day or a time (default: never)')
  common(create, "packs token create --name ci --pull 'packs/*' --push 'packs/net-*' --expires 90d").action(
    (flags: CreateFlags) => run(here, flags, (at) => createToken(at, flags)),
  )
  const list = token.command('list').description('show every token, those that hold first')
  common(list, 'packs token list').action((flags: CommonFlags) => run(here, flags, listTokens))
  const revoke = token
    .command('revoke')
    .description('end a token, at once and everywhere')
    .argument('<token>', 'its name or its id')
  common(revoke, 'packs token revoke ci').action((id: string, flags: CommonFlags) =>
    run(here, flags, (at) => revokeToken(at, id)),
  )
  const rotate = token
    .command('rotate-key')
    .description('sign the short-lived tokens of clients with a new key; those that are out stay good')
  common(rotate, 'packs token rotate-key').action((flags: CommonFlags) => run(here, flags, rotateKey))
}

async function createToken(at: Run, flags: CreateFlags): Promise<void> {
  const client = await connect(at)
  const { name, pull = [], push = [], overwrite = [], delete: remove = [], admin = false, expires } = flags
  // What may be pushed to is read too: clients look before they push.
  const reads = [...new Set([...pull, ...push, ...overwrite, ...remove])]
  const globs = { pull: reads, push, overwrite, delete: remove }
  const { token, info } = await client.tokens.create({ name, ...globs, admin, expires }, { signal: at.signal })
  at.output.note(`${aligned(factsOf(info))}This is the token. It is not shown again:`)
  at.output.result({ token, info }, () => token)
}

async function listTokens(at: Run): Promise<void> {
  const client = await connect(at)
  const tokens = await client.tokens.list({ signal: at.signal })
  at.output.result({ tokens }, () => {
    const rows = tokens.map((token) => [
      ...[token.name, token.state, token.expiresAt ?? 'never', token.lastUsedAt ?? 'never'],
      ...[rightsOf(token), token.id],
    ])
    return table(['NAME', 'STATE', 'EXPIRES', 'LAST USED', 'MAY', 'ID'], rows) || 'no tokens'
  })
}

async function revokeToken(at: Run, id: string): Promise<void> {
  const client = await connect(at)
  const info = await client.tokens.revoke(id, { signal: at.signal })
  at.output.result({ info }, () => `${info.name} (${info.id}) is revoked`)
}

async function rotateKey(at: Run): Promise<void> {
  const client = await connect(at)
  const kid = await client.tokens.rotateKey({ signal: at.signal })
  at.output.result({ kid }, () => `tokens are signed by ${kid} from now on`)
}

function rightsOf({ grants, admin }: ApiToken): string {
  const each = grants.map(({ glob, actions }) => `${actions.join(',')} ${glob}`)
  return [...(admin ? ['admin'] : []), ...each].join('; ') || 'nothing'
}

function factsOf(info: ApiToken): string[][] {
  return [
    ['name', info.name],
    ['id', info.id],
    ['may', rightsOf(info)],
    ['expires', info.expiresAt ?? 'never'],
  ]
}
