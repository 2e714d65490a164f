"""Words and turns of phrase that may stand for each other in a question.

Each line reads `word|other|other`: the first may become any of the others,
wherever it occurs. Replacement goes one way and one step only, so that it cannot
walk from word to word and end at another meaning; words whose change would turn
one fact into another (stop a model, stop the node) stay out.
"""

LINES = """
machine|computer|pc|box|laptop|server|device|workstation|desktop|notebook
machines|computers|pcs|boxes|laptops|servers|devices|notebooks
friend|colleague|buddy|mate|coworker|brother|flatmate|neighbour|team mate|pal|sister|roommate|cousin
friends|colleagues|buddies|mates|coworkers|team mates|family|pals|neighbours
friend's|colleague's|buddy's|mate's|brother's|flatmate's|coworker's|sister's|neighbour's|pal's
delete|remove|erase|get rid of|throw away|wipe|ditch
show|display|view|see|print|look at
list|show|display|enumerate|print|see|look up
download|fetch|get|grab|obtain|pull|retrieve
start|launch|fire up|boot|kick off|begin|spin up
create|make|set up|build|establish|open|form
change|alter|modify|adjust|set|edit|override
find out|learn|know|discover|see|check|figure out|determine
check|verify|see|test|look up|inspect
use|employ|work with|make use of|try|utilise
install|set up|put
choose|pick|select|specify|decide on|name
query|question
command|command line|subcommand|cli command|instruction
folder|directory|dir|place|location|path
disk|drive|ssd|hard disk|storage
supported|accepted|allowed|understood|possible|available
someone|somebody|a person|another person|anyone|a friend
send|give|pass|submit|hand
another|a different|some other|a second|one more
several|many|multiple|lots of|a few|plenty of
stored|kept|saved|written|put|held
answer|reply|response|output
answers|replies|responses
answered|replied|responded
join|enter|get into|become part of|connect to|hop into|be part of
invite|invitation|invite code|invite link|invite string|ticket
members|peers|participants|people|users
member|peer|participant
error|failure|problem|message
speed|performance
fast|quick|speedy
big|large|huge
bigger|larger|better|smarter|stronger
gpu|graphics card|video card|gpus
limit|cap|restrict|bound
required|needed|necessary|mandatory|obligatory
need|require|have to have
default|standard|preset|normal|usual
connect|hook up|attach|link|plug
works|functions|operates
support|handle|understand|know|allow|offer
does it|does potluck|does the node|will it|can it|can potluck
is it|is potluck|is this
it|potluck|the node|the program|this thing
the node|my node|potluck|the server|the daemon|a node|this node|the service
explain|describe|clarify
internet|web|network|net
offline|disconnected|without a connection
happens|occurs|will happen|is going to happen
request|call|query|job|prompt
requests|calls|queries|jobs|prompts
prompt|question|input|query|text
too long|too big|too large|over the limit
credits|my credits|credit
money|credits|cash
kick|throw|boot
leave|quit|exit
password|passwords|secret|credentials
passwords|secrets|credentials|api keys
dies|crashes|goes down|disappears|vanishes|breaks
unload|take out of memory|kick out of memory
benchmark|measure|time
diagnose|debug|troubleshoot|examine|analyse
browser|web browser|firefox|chrome|safari
memory|memory store|the memory
remembered|stored|memorised|kept
agent|assistant|coding agent|ai agent|bot
agents|assistants|coding agents|bots
private|confidential|secret
encrypted|secured|protected|scrambled
shut down|stop|switch off|turn off|power down
turn on|enable|switch on|activate
turn off|disable|switch off|deactivate
quantisation|quantization|quant
licence|license
a pool|the pool|my pool|a trusted pool|some pool|our pool
strangers|unknown people|other people|anybody|people i do not know
cheats|lies|is dishonest
earn|make|gain
now|at the moment|right now|currently|at present
rebuild|recreate|regenerate|redo
terminal|shell|console|command line
models|llms|language models|ai models
a model|an llm|a language model|one model|some model|the model|my model|an ai model
interrupted|cut off|aborted|broken off|stopped
resume|continue|pick up|carry on with
slow|sluggish|so slow|lagging
client|app|program|library|tool
clients|apps|programs|libraries|tools
script|program|code
find|locate|discover|look up|get
remember|keep|retain|memorise|store
search|look through|look for something in|hunt through
export|dump|save|back up|write out
import|load|read in|bring in|take over
revoke|ban|kick out|throw out|cancel
provider|supplier|host|server
price|cost|fee
tutorial|guide|walkthrough|manual|how-to
conversation|dialogue|chat|talk
old|unused|outdated|former
new|fresh|brand new
crash|failure|breakdown
router|modem|gateway
quickly|fast|rapidly
file|document
files|documents|data
documents|texts|files
number|count|amount
details|specifics|information|facts
allowed|permitted|ok|legal
what's|what is|which is|tell me
what is|what's|tell me|i want to know
what are|which are|tell me|name
what command|which command|what|which instruction|what potluck command
can i|could i|may i|am i able to|is it possible for me to|is there a way for me to
do i need|must i have|is it necessary to have|will i need|do we need|does one need
do i have to|must i|need i|am i forced to|do we have to|should i
is there|do you have|does it have|does potluck have|can i find|have you got|does there exist
does it support|can it do|is it able to do|does it have|does it offer|is there
which|what
how do i|how does one|how can i|how should i|in what way do i|what do i do to|how do we|how would somebody
how can i|how do i|in which way can i|what can i do to
how does|in what way does
how are|in what way are
how is|in what way is
where is|where's|where do i find|where can i find|what is the location of|where would i look for
where do i|where can i|where should i|at what place do i
what happens if|what if|what is the result when|what does it do when|what will it do if|what do you do if
what happens when|what if|what does it do if|what will happen when
why|how come|for what reason|why on earth
how many|what number of
how long|for how much time|for how long
who|which person|whoever
i want to|i'd like to|i wish to|i need to|i hope to|i am keen to|i'm planning to
tell me|let me know|inform me|say
what should i|what do i|what must i|what shall i
when|if|as soon as|whenever
if|when|in case|whenever
give me|show me|provide|i need
i have|i've got|there is|i own|we have
i got|i received|i have|i was handed
my|the|our|this|one's own
""".strip().splitlines()
