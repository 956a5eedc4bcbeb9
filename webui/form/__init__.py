"""The form of the Train page: five steps, and the plan that follows from their answers.

Imports: kit, state, core. Add a setting: nothing here; `fields` makes a component of each field of core/recipe.
"""
