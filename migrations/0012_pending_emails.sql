-- Addresses that were given before they had to be confirmed wait for it now. Apart from the columns: those lock the table.

update accounts set pending_email = emails.email from emails
where accounts.shard = ((emails.account_id >> 10) & 8191) and accounts.id = emails.account_id;
