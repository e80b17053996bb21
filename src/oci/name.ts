declare const brand: unique symbol

/** A repository name. At most 255 characters, so that it also fits what other registries and clients accept. */
export type RepositoryName = string & { readonly [brand]: 'RepositoryName' }

const component = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*'
const grammar = new RegExp(`^${component}(?:/${component})*$`)

/** The text as a repository name, or undefined. Source: distribution-spec, "Pulling manifests". */
export function parseName(text: string): RepositoryName | undefined {
  return text.length <= 255 && grammar.test(text) ? (text as RepositoryName) : undefined
}
