import type { Command } from 'commander'
import { actions, mayAccess } from '../auth/access.ts'
import { type Policy, parsePolicy, rightsOf } from '../auth/policy.ts'
import { PacksError } from '../client/failure.ts'
import { parseName } from '../oci/name.ts'
import { readNamed } from './document.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'

type CheckFlags = CommonFlags & { repository?: string; claim?: string[]; issuer?: string }

/** The commands for the file that says who may do what. */
export function addPolicy(packs: Command, here: Here): void {
  const policy = packs.command('policy').description('the file that says who may do what (POLICY_FILE)')
  policy.addHelpText('after', '\nExample:\n  packs policy check policy.json')
  const check = policy
    .command('check')
    .description('read the file as the registry does; and say what somebody may do')
    .argument('<file>', 'the policy, in JSON')
    .option('--repository <name>', 'what may be done to this one')
    .option('--claim <name=value>', 'what is said of who asks; again for more', (claim: string, all: string[] = []) => [
      ...all,
      claim,
    ])
    .option('--issuer <url>', 'whose word that is (default: the Authority, or the htpasswd file)')
  const example = 'packs policy check policy.json --repository packs/net-policy --claim sub=alice --claim groups=net'
  common(check, example, { registry: false }).action((file: string, flags: CheckFlags) =>
    run(here, flags, (at) => checkPolicy(at, file, flags)),
  )
}

async function checkPolicy({ output }: Run, file: string, flags: CheckFlags): Promise<void> {
  const policy = parse(file, (await readNamed(file)).toString())
  const { rules, issuers } = policy
  if (flags.repository === undefined)
    return output.result(
      { file, rules: rules.length, issuers: issuers.length },
      () => `${file} can be used: ${rules.length} rules, ${issuers.length} issuers of workloads`,
    )
  const repository = parseName(flags.repository)
  if (!repository) throw new PacksError('USAGE', `${JSON.stringify(flags.repository)} is not a repository name`)
  const { grants, admin } = rightsOf(policy, { issuer: flags.issuer, claims: claimsOf(flags.claim ?? []) })
  const principal = { name: '', kind: 'user', shown: 'credential', grants, listing: grants, admin } as const
  const may = actions.filter((action) => mayAccess(principal, repository, action))
  output.result(
    { repository, actions: may, admin },
    () => `${may.join(', ') || 'nothing'} on ${repository}${admin ? '; and administers the registry' : ''}`,
  )
}

function parse(file: string, text: string): Policy {
  try {
    return parsePolicy(text)
  } catch (error) {
    throw unusable(file, error as Error)
  }
}

function unusable(file: string, cause: Error): PacksError {
  return new PacksError('POLICY_INVALID', `${file} cannot be used:\n${cause.message}`, { cause })
}

/** `name=value`, the same name several times: a list. */
function claimsOf(texts: readonly string[]): Record<string, string[]> {
  const claims: Record<string, string[]> = {}
  for (const text of texts) {
    const equals = text.indexOf('=')
    if (equals < 1) throw new PacksError('USAGE', `${JSON.stringify(text)} is not name=value`)
    const name = text.slice(0, equals)
    claims[name] = [...(claims[name] ?? []), text.slice(equals + 1)]
  }
  return claims
}
