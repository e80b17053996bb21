import * as v from 'valibot'
import { type Action, actions, compileGrants, type Grant, type Grants } from './access.ts'
import { isGlob } from './glob.ts'

// What people and pipelines may do, as a file of JSON:
//
//   { "rules": [
//       { "repositories": ["packs/*"], "actions": ["pull"] },
//       { "repositories": ["packs/net-*"], "actions": ["pull", "push"], "claims": { "groups": "net" } },
//       { "repositories": ["**"], "actions": ["pull", "push", "delete"], "admin": true, "claims": { "sub": "alice" } },
//       { "repositories": ["packs/net-policy"], "actions": ["push"], "issuer": "https://ci.example.org",
//         "claims": { "repository": "acme/net-policy", "ref": "refs/heads/main" } } ],
//     "issuers": [ { "issuer": "https://ci.example.org", "audience": "https://packs.example.org" } ] }
//
// A rule is about those in whose claims each of its own is found (equal, or in a list); about everybody who is logged in
// where it has none. A rule that names no issuer is about people (the Authority's, or htpasswd's: their only claim is
// `sub`), never about the workloads of another issuer, whose claims are that issuer's word. Of the rules about someone,
// the longest glob that matches a repository decides; of equally long ones all count; what none matches is denied.

const claimValue = v.union([v.string(), v.number(), v.boolean()], 'must be text, a number, true or false')
const globSchema = v.pipe(
  v.string('must be text'),
  v.check(isGlob, 'must be a glob over repository names, such as packs/* or mirror/**, with three wildcards at most'),
)
const issuerUrl = v.pipe(
  v.string('must be text'),
  v.check(isIssuer, 'must be an https address, without a query (http only on this machine)'),
)

/** What a schema passes over without a word: a rule that named such a claim alone would be about everybody. */
const notClaims = ['__proto__', 'prototype', 'constructor']
const claimsSchema = v.pipe(
  v.unknown(),
  v.check(
    (claims) => !notClaims.some((name) => claims instanceof Object && Object.hasOwn(claims, name)),
    'must not name __proto__, prototype or constructor',
  ),
  v.record(v.string(), v.union([claimValue, v.array(claimValue)], 'must be a value or a list of values')),
)

const ruleSchema = v.strictObject(
  {
    repositories: v.pipe(v.array(globSchema, 'must be a list of globs'), v.minLength(1, 'must name a repository')),
    actions: v.array(v.picklist(actions, `must be one of ${actions.join(', ')}`), 'must be a list of actions'),
    claims: v.optional(claimsSchema),
    issuer: v.optional(issuerUrl),
    admin: v.optional(v.boolean('must be true or false')),
    comment: v.optional(v.string('must be text')),
  },
  (issue) => (issue.expected === 'never' ? 'is not a field of a rule' : 'must be an object'),
)

const policySchema = v.pipe(
  v.strictObject(
    {
      rules: v.array(ruleSchema, 'must be a list of rules'),
      issuers: v.optional(
        v.array(
          v.strictObject(
            { issuer: issuerUrl, audience: v.pipe(v.string('must be text'), v.minLength(1, 'must not be empty')) },
            'must be { "issuer": …, "audience": … }',
          ),
          'must be a list of issuers',
        ),
        [],
      ),
    },
    (issue) => (issue.expected === 'never' ? 'is not a field of a policy' : 'must be an object with "rules"'),
  ),
  v.check(
    ({ rules, issuers }) =>
      rules.every((rule) => !rule.issuer || issuers.some((trusted) => trusted.issuer === rule.issuer)),
    'a rule names an issuer that does not stand under "issuers"',
  ),
  v.check(
    ({ rules }) => rules.every((rule) => !rule.issuer || Object.keys(rule.claims ?? {}).length > 0),
    'a rule for another issuer has to name claims: without any, everybody on that issuer could use it',
  ),
)

export type Policy = v.InferOutput<typeof policySchema>
type Rule = Policy['rules'][number]

/** Without a policy file, who is logged in may do everything; tokens of the Authority are held to their scopes. */
export const openPolicy: Policy = { rules: [{ repositories: ['**'], actions: [...actions], admin: true }], issuers: [] }

/** Who somebody is, by the word of an issuer; `issuer` undefined: the Authority or the htpasswd file. */
export type Identity = { issuer: string | undefined; claims: Readonly<Record<string, unknown>> }

export type Rights = { grants: Grants; admin: boolean }

/** Reads a policy. Throws an Error that lists everything that is wrong with it, one a line. */
export function parsePolicy(text: string): Policy {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new Error(`it is not JSON: ${(cause as Error).message}`, { cause })
  }
  const result = v.safeParse(policySchema, value)
  if (result.success) return result.output
  throw new Error(result.issues.map((issue) => `${v.getDotPath(issue) ?? 'policy'}: ${issue.message}`).join('\n'))
}

/** What an identity may do. `scopes`: those of an access token of the Authority, which hold it to less. */
export function rightsOf(policy: Policy, identity: Identity, scopes?: readonly string[]): Rights {
  const about = policy.rules.filter((rule) => isAbout(rule, identity))
  const allowed = scopes && actionsOfScopes(scopes)
  const grants: Grant[] = about.flatMap((rule) => {
    const held = rule.actions.includes('delete') ? [...rule.actions, 'overwrite' as const] : rule.actions
    const left = allowed ? held.filter((action) => allowed.has(action)) : held
    return rule.repositories.map((glob) => ({ glob, actions: left }))
  })
  const admin = about.some((rule) => rule.admin === true) && (!scopes || scopes.includes('packs.admin'))
  return { grants: compileGrants(grants), admin }
}

function isAbout({ issuer, claims = {} }: Rule, identity: Identity): boolean {
  if (issuer !== identity.issuer) return false
  return Object.entries(claims).every(([name, wanted]) => {
    if (!Object.hasOwn(identity.claims, name)) return false
    const claim = identity.claims[name]
    const held: unknown[] = Array.isArray(claim) ? claim : [claim]
    return (Array.isArray(wanted) ? wanted : [wanted]).some((value) => held.includes(value))
  })
}

/** What each scope lets do. Whoever may write or approve may read. */
const scopeActions: Record<string, readonly Action[]> = {
  'packs.read': ['pull'],
  'packs.write': ['pull', 'push'],
  'packs.approve': ['pull', 'overwrite', 'delete'],
  'packs.admin': actions,
}

function actionsOfScopes(scopes: readonly string[]): ReadonlySet<Action> {
  return new Set(scopes.flatMap((scope) => (Object.hasOwn(scopeActions, scope) ? (scopeActions[scope] ?? []) : [])))
}

/** Whether an address can be that of an issuer: nothing that is said in the open over a network is believed. */
export function isIssuer(text: string): boolean {
  if (!URL.canParse(text)) return false
  const { protocol, hostname, search, hash } = new URL(text)
  const isLocal = /^(?:localhost|\[::1\]|127\.\d+\.\d+\.\d+)$/.test(hostname)
  return (protocol === 'https:' || (protocol === 'http:' && isLocal)) && !search && !hash
}
