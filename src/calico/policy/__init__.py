"""What may talk: groups and their members as rulesets for endpoints. Pure."""
