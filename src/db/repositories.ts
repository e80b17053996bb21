/**
 * The id of a repository by its name, an expression of one value, for statements that ask for content of one repository.
 *
 * Not a join: where the plan is made for any name, the planner takes a digest to be found once, and looks for it in all
 * repositories before it asks which is meant. An empty config is in every one of them.
 */
export const repositoryNamed = (name: string) => `(select id from repositories where name = ${name})`

/**
 * The repositories with the names in a column, as `r (id)`: a part of a statement, behind what has that column. They are
 * looked up one by one, where the planner may else read all repositories for two of them.
 */
export const repositoryOf = (column: string) =>
  `cross join lateral (select id from repositories where name = ${column} limit 1) r`
