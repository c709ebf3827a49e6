-- What was set for an mcp goes with it. What was archived before that was so still has its values: nobody could name them.
UPDATE credentials SET sealed = '', set_by = ''
    WHERE sealed <> '' AND mcp_id IN (SELECT id FROM mcps WHERE state = 'archived');
