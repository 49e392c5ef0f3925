-- Lets one registration at a time through, until its transaction ends. Readers and logins are not held up.
LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE
