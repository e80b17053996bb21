import type { Command } from 'commander'
import { PacksError } from '../client/failure.ts'
import { askLine, askSecret, readStdin } from './ask.ts'
import { addressOf, authPath, type Credentials, forgetLogin, keepLogin, registryOf } from './auth-file.ts'
import { clientOf } from './connect.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'

type LoginFlags = CommonFlags & { username?: string; passwordStdin?: true; tokenStdin?: true }

export function addLogin(packs: Command, here: Here): void {
  const login = packs
    .command('login')
    .description('try a login, keep it, and use that registry from now on')
    .argument('[url]', 'address of the registry (default: the one in use)')
    .option('--username <name>', 'who logs in; asked for on a terminal')
    .option('--password-stdin', 'read the password from stdin instead of asking for it')
    .option('--token-stdin', 'read a bearer token from stdin, instead of user and password')
  const example =
    'packs login https://packs.example.org\nprintenv PACKS_TOKEN | packs login https://packs.example.org --token-stdin'
  common(login, example, { registry: false }).action((url: string | undefined, flags: LoginFlags) =>
    run(here, flags, (at) => logIn(at, url, flags)),
  )
  const logout = packs
    .command('logout')
    .description('forget a login')
    .argument('[url]', 'address of the registry (default: the one in use)')
  common(logout, 'packs logout https://packs.example.org', { registry: false }).action(
    (url: string | undefined, flags: CommonFlags) => run(here, flags, (at) => logOut(at, url)),
  )
}

async function logIn(at: Run, given: string | undefined, flags: LoginFlags): Promise<void> {
  const { env, output, signal } = at
  const url = await registryOf(env, given)
  const credentials = await credentialsOf(url, flags, signal)
  const client = await clientOf(at, url, credentials)
  await client.ping({ signal })
  await keepLogin(env, url, credentials)
  const username = credentials && 'username' in credentials ? credentials.username : undefined
  const registry = addressOf(url)
  output.result({ registry, ...(username ? { username } : {}), file: authPath(env) }, () =>
    credentials
      ? `logged in to ${registry}${username ? ` as ${username}` : ''}; kept in ${authPath(env)}`
      : `${registry} is used from now on, without a login`,
  )
}

/** What was given, or what a person answers. No user name: nobody, for registries that are open to all. */
async function credentialsOf(url: URL, flags: LoginFlags, signal: AbortSignal): Promise<Credentials | undefined> {
  const { tokenStdin, passwordStdin } = flags
  if (tokenStdin && (passwordStdin || flags.username))
    throw new PacksError('USAGE', '--token-stdin goes without --username and --password-stdin')
  if (tokenStdin) return { token: await readStdin('the token') }
  if (passwordStdin && !flags.username) throw new PacksError('USAGE', '--password-stdin needs --username')
  if (passwordStdin && flags.username) return { username: flags.username, password: await readStdin('the password') }
  if (!process.stdin.isTTY)
    throw new PacksError(
      'USAGE',
      'there is no terminal to ask on. Use --username with --password-stdin, or --token-stdin',
    )
  const host = url.host
  const username = flags.username ?? (await askLine(`User name at ${host} (empty: none): `, signal))
  return username ? { username, password: await askSecret(`Password of ${username} at ${host}: `, signal) } : undefined
}

async function logOut({ env, output }: Run, given: string | undefined): Promise<void> {
  const url = await registryOf(env, given)
  const forgotten = await forgetLogin(env, url)
  output.result({ registry: addressOf(url), forgotten }, () =>
    forgotten ? `logged out of ${addressOf(url)}` : `there was no login at ${addressOf(url)}`,
  )
}
